"""Run a sharded program on XLA CPU replicas and compare it with the one-device result."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from generate.oracle import sayable

from pai.compiler.reference import QUICK_COMPILE, run_reference, run_reference_spmd
from pai.dialects.mlir import context, func, ir, parse, to_text
from pai.dialects.sdy import (
    set_argument_sharding,
    set_mesh,
    set_op_shardings,
    set_result_sharding,
    sharding_attr,
)
from pai.passes.partition.localize import localize
from pai.passes.partition.partition import partition
from pai.passes.partition.report import LocalModule
from pai.passes.simplify.inline import Inline
from pai.passes.simplify.legalize import Legalize
from pai.runtime.mesh import AxisRef, Mesh, Sharding

Spec = Sequence[str | tuple[str, ...] | None]

# Relative error by dtype, and absolute error as a part of the largest value: the order of additions
# differs between the programs, so f32 gets some hundred units in the last place.
TOLERANCE = {
    "float64": 1e-10,
    "float32": 2e-5,
    "complex64": 2e-5,
    "bfloat16": 3e-2,
    "float16": 4e-3,
}


def mesh_of(*sizes: int) -> Mesh:
    """Return a mesh with axes x, y, z of these sizes."""
    return Mesh(tuple(zip("xyz", sizes, strict=False)))


def sharding_of(spec: Spec) -> Sharding:
    """Return a sharding from axis names per dimension, as JAX's PartitionSpec writes it."""
    dims = [(axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in spec]
    return Sharding(tuple(tuple(AxisRef(name) for name in axes) for axes in dims))


def as_sharding(spec: Spec | Sharding) -> Sharding:
    """Return a spec as a sharding; a sharding, which may use sub-axes, stays as it is."""
    return spec if isinstance(spec, Sharding) else sharding_of(spec)


def shard(array: np.ndarray, sharding: Sharding, mesh: Mesh) -> list[np.ndarray]:
    """Return each device's shard, padded with zeros."""
    array = np.asarray(array)
    local = sharding.local_shape(array.shape, mesh)
    counts = [sharding.num_shards(dim, mesh) for dim in range(array.ndim)]
    pads = [(0, n * c - s) for n, c, s in zip(local, counts, array.shape, strict=True)]
    padded = np.pad(array, pads) if array.ndim else array
    out = []
    for device in range(mesh.num_devices):
        index = sharding.shard_index(mesh, device)
        cut = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, local, strict=True))
        out.append(np.ascontiguousarray(padded[cut]) if array.ndim else padded)
    return out


def unshard(
    shards: Sequence[np.ndarray], sharding: Sharding, mesh: Mesh, shape: Sequence[int]
) -> np.ndarray:
    """Put shards together; copies of the same shard have to be equal bit by bit."""
    local = sharding.local_shape(tuple(shape), mesh)
    counts = [sharding.num_shards(dim, mesh) for dim in range(len(shape))]
    full = np.zeros([n * c for n, c in zip(local, counts, strict=True)], shards[0].dtype)
    seen: dict[tuple[int, ...], np.ndarray] = {}
    for device, part in enumerate(shards):
        assert part.shape == local
        index = sharding.shard_index(mesh, device)
        cut = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, local, strict=True))
        full[cut] = part
        seen[index] = part
    out = full[tuple(slice(0, size) for size in shape)]
    for device, part in enumerate(shards):
        index = sharding.shard_index(mesh, device)
        valid = tuple(
            slice(0, max(0, min(n, s - i * n))) for i, n, s in zip(index, local, shape, strict=True)
        )
        np.testing.assert_array_equal(plain(part[valid]), plain(seen[index][valid]))
    return out


def plain(array: np.ndarray) -> np.ndarray:
    """Return bfloat16 and the like as float32: NumPy's comparisons know NaN there."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


@dataclass
class Outcome:
    """What a comparison saw."""

    local: LocalModule
    text: str
    results: list[np.ndarray] = field(default_factory=list)


def lower(function: Any, arguments: Sequence[Any]) -> str:
    """Return a JAX function as StableHLO text with one function and no CHLO but erf, top_k."""
    wide = any(array.dtype.itemsize >= 8 for array in flatten(arguments))
    with jax.enable_x64(wide):
        return jax.jit(function, keep_unused=True).lower(*arguments).as_text()


def prepare(
    text: str,
    mesh: Mesh,
    specs: Sequence[Spec | Sharding | None],
    results: Sequence[Sharding | None] = (),
    open_dims: Sequence[bool] = (),
) -> ir.Module:
    """Parse, simplify and annotate a module; arguments in ``open_dims`` may be split further."""
    module = parse(text, "test", context())
    Inline().run(module)
    Legalize().run(module)
    if mesh.num_devices > 1:
        set_mesh(module, mesh)
    (main,) = [op for op in module.body.operations if isinstance(op, func.FuncOp)]
    with module.context:
        for index, spec in enumerate(specs):
            if spec is not None:
                free = bool(open_dims) and open_dims[index]
                set_argument_sharding(main, index, sharding_attr(as_sharding(spec), open=free))
        for index, spec in enumerate(results):
            if spec is not None:
                set_result_sharding(main, index, sharding_attr(spec))
    return module


def check(
    program: str | Any,
    arguments: Sequence[Any],
    mesh: Mesh,
    specs: Sequence[Spec | None],
    *,
    strict: bool = False,
    tolerance: float | None = None,
) -> Outcome:
    """Partition a program (text, or a JAX function) and compare it with one device."""
    text = program if isinstance(program, str) else lower(program, arguments)
    flat = flatten(arguments)
    local = partition(prepare(text, mesh, specs), mesh, strict=strict)
    expected = run_reference(sayable(text), flat, QUICK_COMPILE)
    return run_and_compare(local, flat, expected, tolerance)


def flatten(arguments: Sequence[Any]) -> list[np.ndarray]:
    """Return the leaves of a tree of arguments as arrays."""
    return [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(list(arguments))]


def run_and_compare(
    local: LocalModule,
    arguments: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    tolerance: float | None = None,
) -> Outcome:
    """Run a local module on its devices and compare what they hold with ``expected``."""
    outcome = Outcome(local, to_text(local.module))
    mesh = local.mesh
    assert "sdy." not in outcome.text
    inputs = device_arguments(local, arguments)
    per_device = run_reference_spmd(sayable(outcome.text), inputs, QUICK_COMPILE)
    for index, want in enumerate(expected):
        parts = [results[index] for results in per_device]
        got = unshard(parts, local.result_shardings[index], mesh, want.shape)
        outcome.results.append(got)
        compare(got, want, tolerance)
    return outcome


def device_arguments(local: LocalModule, arguments: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Return per device its shard of every argument."""
    shards = [
        shard(array, sharding, local.mesh)
        for array, sharding in zip(arguments, local.argument_shardings, strict=True)
    ]
    return [[parts[device] for parts in shards] for device in range(local.mesh.num_devices)]


def localize_raw(module: ir.Module, mesh: Mesh, pick: Any) -> LocalModule:
    """Localize with the sharding ``pick(rank)`` on every value, whatever Shardy would say."""
    with module.context:
        for block_op in _inner(module.operation):
            if block_op.results and block_op.name != "sdy.mesh":
                ranks = [len(value.type.shape) for value in block_op.results]
                attrs = [sharding_attr(as_sharding(pick(rank))) for rank in ranks]
                set_op_shardings(block_op, attrs)
    out = localize(module, mesh=mesh)
    return LocalModule(module, mesh, out.arguments, out.results)


def _inner(op: ir.Operation) -> list[ir.Operation]:
    """Return the operations on tensors, those in loops and branches included."""
    out = []
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                out.append(inner.operation)
                if inner.operation.name in NESTED:
                    out += _inner(inner.operation)
    return out


NESTED = ("func.func", "stablehlo.while", "stablehlo.case", "stablehlo.if")


def compare(got: np.ndarray, want: np.ndarray, tolerance: float | None = None) -> None:
    """Compare exactly for integers, within the dtype's tolerance for floats."""
    assert got.dtype == want.dtype and got.shape == want.shape
    limit = tolerance if tolerance is not None else TOLERANCE.get(got.dtype.name, 0.0)
    if limit == 0.0:
        np.testing.assert_array_equal(got, want)
        return
    wide = np.complex128 if got.dtype.kind == "c" else np.float64
    want = want.astype(wide)
    finite = np.abs(want[np.isfinite(want)])
    scale = max(1.0, float(finite.max(initial=0.0)))
    np.testing.assert_allclose(got.astype(wide), want, rtol=limit, atol=limit * scale)


def specs_of(rank: int, axes: Sequence[str]) -> list[Spec]:
    """Return every way to lay whole axes, each at most once, over ``rank`` dimensions."""
    out: set[tuple[tuple[str, ...], ...]] = set()
    for places in itertools.product(range(-1, rank), repeat=len(axes)):
        dims: list[tuple[str, ...]] = [()] * rank
        for axis, place in zip(axes, places, strict=True):
            if place >= 0:
                dims[place] = (*dims[place], axis)
        out.add(tuple(dims))
    return [list(spec) for spec in sorted(out)]
