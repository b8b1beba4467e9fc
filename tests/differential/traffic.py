"""Bytes that a sharded program moves: ours, and those of XLA's SPMD partitioner.

Both are counted alike: the bytes of the results of all collectives on one device. Run as a script,
it prints the table of window operations that `test_windows.py` checks.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
sys.path.insert(0, str(Path(__file__).parent))

import jax
import jax.numpy as jnp
import numpy as np
from harness import lower, mesh_of, prepare
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pai.passes.partition.partition import partition

SIZES = {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "bf16": 2, "f16": 2, "pred": 1}
COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(-start)?\("
)


def xla_bytes(
    function: Callable[..., Any], arguments: Sequence[Any], sizes: Sequence[int], specs: Any
) -> dict[str, int]:
    """Return bytes by kind of collective in what XLA compiles for these devices."""
    count = int(np.prod(sizes))
    devices = np.array(jax.devices()[:count]).reshape(sizes)
    mesh = Mesh(devices, tuple("xyz"[: len(sizes)]))
    shardings = [NamedSharding(mesh, PartitionSpec(*(spec or ()))) for spec in specs]
    compiled = jax.jit(function, in_shardings=shardings).lower(*arguments).compile()
    out: dict[str, int] = {}
    for types, kind, _ in COLLECTIVE.findall(compiled.as_text()):
        for element, dims in re.findall(r"(\w+)\[([\d,]*)\]", types):
            size = SIZES[element] * int(np.prod([int(d) for d in dims.split(",") if d]))
            out[kind.replace("-", "_")] = out.get(kind.replace("-", "_"), 0) + size
    return out


def our_bytes(
    function: Callable[..., Any], arguments: Sequence[Any], sizes: Sequence[int], specs: Any
) -> dict[str, int]:
    """Return bytes by kind of collective in the local module."""
    mesh = mesh_of(*sizes)
    module = prepare(lower(function, arguments), mesh, specs)
    out: dict[str, int] = {}
    for use in partition(module, mesh).report.collectives:
        out[use.kind] = out.get(use.kind, 0) + use.bytes_per_device
    return out


@dataclass(frozen=True)
class Case:
    """A program whose first argument, NHWC, is laid out by ``spec``; all others are whole."""

    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...] = (8,)
    spec: tuple[str | None, ...] = (None, "x", None, None)

    def count(self, how: Callable[..., dict[str, int]]) -> dict[str, int]:
        """Return bytes by kind; ``how`` is `xla_bytes` or `our_bytes`."""
        arrays = [np.ones(shape, np.float32) for shape in self.shapes]
        specs = [self.spec] + [None] * (len(self.shapes) - 1)
        return how(self.function, arrays, self.sizes, specs)


def conv(
    strides: int = 1, padding: Any = "SAME", base: int = 1, dilation: int = 1, groups: int = 1
) -> Callable[..., Any]:
    """Return a convolution of NHWC with HWIO."""

    def run(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(
            x,
            w,
            (strides, strides),
            padding,
            (base, base),
            (dilation, dilation),
            ("NHWC", "HWIO", "NHWC"),
            groups,
        )

    return run


def pool(size: int, stride: int, padding: str = "VALID", *, mean: bool = False) -> Any:
    """Return max or mean pooling."""

    def run(x: Any) -> Any:
        window, steps = (1, size, size, 1), (1, stride, stride, 1)
        if mean:
            return lax.reduce_window(x, 0.0, lax.add, window, steps, padding) / size**2
        return lax.reduce_window(x, -np.inf, lax.max, window, steps, padding)

    return run


def gradient(function: Callable[..., Any], *which: int) -> Callable[..., Any]:
    """Return the gradient of the sum of squares by some arguments."""
    return jax.grad(lambda *args: jnp.sum(function(*args) ** 2), which)


def ring(x: Any) -> Any:
    """Return an image with a ring of zeros around it."""
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


IMAGE, KERNEL = (2, 64, 32, 4), (3, 3, 4, 4)
CASES = {
    "conv 3x3": Case(conv(), (IMAGE, KERNEL)),
    "conv 7x7": Case(conv(), (IMAGE, (7, 7, 4, 4))),
    "conv 3x3, 4x2": Case(conv(), (IMAGE, KERNEL), (4, 2), (None, "x", "y", None)),
    "conv 3x3, batch and rows": Case(conv(), (IMAGE, KERNEL), (4, 2), ("y", "x", None, None)),
    "conv 3x3 stride 2": Case(conv(2), (IMAGE, KERNEL)),
    "conv 3x3 dilation 2": Case(conv(dilation=2), (IMAGE, KERNEL)),
    "conv 3x3 valid": Case(conv(padding="VALID"), (IMAGE, KERNEL)),
    "conv 2x2 stride 2": Case(conv(2), (IMAGE, (2, 2, 4, 4))),
    "conv transposed 3x3": Case(conv(padding=((1, 2), (1, 2)), base=2), (IMAGE, KERNEL)),
    "conv depthwise": Case(conv(groups=4), (IMAGE, (3, 3, 1, 4))),
    "gradient conv 3x3": Case(gradient(conv(), 0, 1), (IMAGE, KERNEL)),
    "gradient conv stride 2": Case(gradient(conv(2), 0, 1), (IMAGE, KERNEL)),
    "gradient conv depthwise": Case(gradient(conv(groups=4), 0, 1), (IMAGE, (3, 3, 1, 4))),
    "gradient conv 4x2": Case(
        gradient(conv(), 0, 1), (IMAGE, KERNEL), (4, 2), (None, "x", "y", None)
    ),
    "max pool 2": Case(pool(2, 2), (IMAGE,)),
    "max pool 3 stride 2": Case(pool(3, 2, "SAME"), (IMAGE,)),
    "mean pool 3": Case(pool(3, 1, "SAME", mean=True), (IMAGE,)),
    "gradient max pool 2": Case(gradient(pool(2, 2), 0), (IMAGE,)),
    "gradient max pool 3 stride 2": Case(gradient(pool(3, 2, "SAME"), 0), (IMAGE,)),
    "gradient mean pool 3": Case(gradient(pool(3, 1, "SAME", mean=True), 0), (IMAGE,)),
    "cumulative sum": Case(lambda x: jnp.cumsum(x, 1), (IMAGE,)),
    "pad": Case(lambda x: jnp.pad(x, ((0, 0), (4, 4), (0, 0), (0, 0))), (IMAGE,)),
    "every other row": Case(lambda x: x[:, ::2], (IMAGE,)),
    "shift by one": Case(lambda x: jnp.roll(x, 1, axis=1), (IMAGE,)),
    "gradient of a shift": Case(gradient(lambda x: jnp.roll(x, 1, axis=1), 0), (IMAGE,)),
    "padded by hand": Case(lambda x, w: conv(padding="VALID")(ring(x), w), (IMAGE, KERNEL)),
    "gradient padded by hand": Case(
        gradient(lambda x, w: conv(padding="VALID")(ring(x), w), 0, 1), (IMAGE, KERNEL)
    ),
    "differences": Case(lambda x: x[:, 1:] - x[:, :-1], (IMAGE,)),
    "inner rows": Case(lambda x: x[:, 2:-2], (IMAGE,)),
}


def main() -> None:
    """Print the table."""
    print("| case | ours | XLA | ours by kind | XLA by kind |\n|---|---:|---:|---|---|")
    for name, case in CASES.items():
        ours, theirs = case.count(our_bytes), case.count(xla_bytes)
        row = [name, sum(ours.values()), sum(theirs.values()), _kinds(ours), _kinds(theirs)]
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def _kinds(table: dict[str, int]) -> str:
    return ", ".join(f"{kind} {size}" for kind, size in sorted(table.items())) or "none"


if __name__ == "__main__":
    main()
