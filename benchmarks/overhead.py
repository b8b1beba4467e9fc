"""What the runtime itself costs: an instruction, and a collective between virtual devices.

    python benchmarks/overhead.py [--json] [--rounds N] [--no-jax]

Measured in one process, in turns, so that both sides meet the same noise:

- a program of 1,000 calls of a kernel that adds one number, on one device: ns per instruction;
- 100 all_reduces (f32, add) of 1 KB and of 1 MB between 8 virtual devices, µs each, against
  ``jax.lax.psum`` in a ``shard_map`` over 8 CPU devices of XLA, 100 in one jitted program.

Kernels come from the CPU code generator; nothing else of the compiler takes part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DEVICES = 8
REPEATS = 100
CALLS = 1000
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"

from pai.compiler.codegen.cpu.compile import compile_kernels  # noqa: E402
from pai.compiler.codegen.cpu.target import parse_target  # noqa: E402
from pai.compiler.package import write_package  # noqa: E402
from pai.dialects.mlir import parse  # noqa: E402
from pai.dialects.program import Program, Role, Signature, Value  # noqa: E402
from pai.passes.partition import LocalModule  # noqa: E402
from pai.passes.schedule import schedule  # noqa: E402
from pai.runtime.executor import LoadedPackage, load  # noqa: E402
from pai.runtime.mesh import AxisRef, Mesh, Sharding  # noqa: E402


def package(text: str, devices: int, size: int, folder: Path) -> LoadedPackage:
    """Return the package of a fused module ``f32[size] -> f32[size]`` per device."""
    module = parse(text)
    target = parse_target("cpu")
    mesh = Mesh((("x", devices),))
    sharding = Sharding(((AxisRef("x"),),))
    whole = (devices * size,)
    signature = Signature(
        (Value("x", Role.INPUT, "f32", whole),), (Value("y", Role.OUTPUT, "f32", whole),)
    )
    local = LocalModule(module, mesh, (sharding,), (sharding,))
    kernels = compile_kernels(module, target)
    program = Program("overhead", module, signature)
    write_package(folder / "p.pai", program, local, schedule(module), kernels, target, "", {})
    return load(folder / "p.pai")


def chain(folder: Path) -> LoadedPackage:
    """Return a program of CALLS tiny kernels, each waiting for the one before."""
    calls = "\n".join(
        f"%v{k + 1} = func.call @k(%v{k}) : (tensor<16xf32>) -> tensor<16xf32>"
        for k in range(CALLS)
    )
    return package(
        f"""
        func.func public @main(%v0: tensor<16xf32>) -> tensor<16xf32> {{
          {calls}
          return %v{CALLS} : tensor<16xf32>
        }}
        func.func private @k(%a: tensor<16xf32>) -> tensor<16xf32>
            attributes {{pai.kernel = "loop", pai.key = "k"}} {{
          %0 = stablehlo.add %a, %a : tensor<16xf32>
          return %0 : tensor<16xf32>
        }}
        """,
        1,
        16,
        folder,
    )


def reductions(size: int, folder: Path) -> LoadedPackage:
    """Return a program of REPEATS all_reduces of ``size`` elements on each of DEVICES devices."""
    kind = f"tensor<{size}xf32>"
    groups = f"dense<[{list(range(DEVICES))}]> : tensor<1x{DEVICES}xi64>"
    steps = "\n".join(
        f"""%v{k + 1} = "stablehlo.all_reduce"(%v{k}) ({{
          ^bb0(%a: tensor<f32>, %b: tensor<f32>):
            %s = stablehlo.add %a, %b : tensor<f32>
            stablehlo.return %s : tensor<f32> }}) {{replica_groups = {groups}}} : ({kind}) -> {kind}
        """
        for k in range(REPEATS)
    )
    body = f"{steps}\n return %v{REPEATS} : {kind}"
    text = f"func.func public @main(%v0: {kind}) -> {kind} {{ {body} }}"
    return package(text, DEVICES, size, folder)


def jax_reductions(size: int) -> Callable[[], Any]:
    """Return a function that runs the same REPEATS all_reduces with jax."""
    import jax  # noqa: PLC0415
    from jax.sharding import Mesh as JaxMesh  # noqa: PLC0415
    from jax.sharding import NamedSharding, PartitionSpec  # noqa: PLC0415

    mesh = JaxMesh(np.array(jax.devices("cpu")[:DEVICES]), ("x",))
    spec = PartitionSpec("x")

    def step(x: jax.Array) -> jax.Array:
        for _ in range(REPEATS):
            x = jax.lax.pcast(jax.lax.psum(x, "x"), "x", to="varying")
        return x

    run = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=spec, out_specs=spec))
    zeros = np.zeros(DEVICES * size, np.float32)
    data = jax.device_put(zeros, NamedSharding(mesh, spec))
    compiled = run.lower(data).compile()
    return lambda: jax.block_until_ready(compiled(data))


def seconds(run: Callable[[], Any]) -> float:
    """Return the wall time of one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def ours(loaded: LoadedPackage, size: int) -> Callable[[], float]:
    """Return a function that runs once and returns the seconds of the run alone."""
    inputs = {"x": np.zeros(loaded.inputs[0].shape[0], np.float32)}
    return lambda: min(loaded.run_repeated(1, inputs)[1])


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(rounds: int, *, with_jax: bool) -> dict[str, Any]:
    """Return every number of the table."""
    out: dict[str, Any] = {"threads": len(os.sched_getaffinity(0)), "rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        run = ours(chain(Path(folder)), 16)
        run()
        out["ns_per_instruction"] = spread([run() / CALLS * 1e9 for _ in range(rounds)])
        for label, size in (("1KB", 256), ("1MB", 262144)):
            run = ours(reductions(size, Path(folder)), size)
            other = jax_reductions(size) if with_jax else None
            pai_times, jax_times = [], []
            for turn in range(rounds + 1):
                pai_times.append(run() / REPEATS * 1e6)
                if other is not None:
                    jax_times.append(seconds(other) / REPEATS * 1e6)
                if turn == 0:  # warm-up
                    pai_times.clear()
                    jax_times.clear()
            entry: dict[str, Any] = {"pai_us": spread(pai_times)}
            if jax_times:
                entry["jax_us"] = spread(jax_times)
                entry["jax_over_pai"] = entry["jax_us"]["median"] / entry["pai_us"]["median"]
            out[f"all_reduce_{label}"] = entry
    return out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-jax", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    out = measure(arguments.rounds, with_jax=not arguments.no_jax)
    if arguments.json:
        print(json.dumps(out, indent=2))
        return
    ns = out["ns_per_instruction"]
    print(f"{out['threads']} threads, median (least to most) of {out['rounds']} rounds")
    print(f"instruction     {ns['median']:9.1f} ns ({ns['min']:.1f} to {ns['max']:.1f})")
    for label in ("1KB", "1MB"):
        entry = out[f"all_reduce_{label}"]
        line = f"all_reduce {label}"
        for name in ("pai", "jax"):
            if f"{name}_us" in entry:
                us = entry[f"{name}_us"]
                line += f"  {name} {us['median']:9.2f} µs ({us['min']:.2f} to {us['max']:.2f})"
        print(line + (f"  jax/pai {entry['jax_over_pai']:.2f}" if "jax_over_pai" in entry else ""))


if __name__ == "__main__":
    main()
