"""shard_map bodies with collectives, sharding constraints, barriers and calls to unknown code."""

from __future__ import annotations

from functools import partial
from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from generate.draw import F32, Program, chance, sizes, values
from generate.layouts import draw_mesh
from pai.runtime.mesh import Mesh


def manual(pick: Random) -> Program:
    """Draw a shard_map or sharding constraints between operations, on a mesh of its own."""
    mesh = Mesh(draw_mesh(pick).axes)  # JAX's text counts devices row by row
    names = tuple(name for name, _ in mesh.axes)
    abstract = AbstractMesh(
        tuple(size for _, size in mesh.axes), names, axis_types=(AxisType.Auto,) * len(names)
    )
    style = _constrained if chance(pick, 0.4) else _mapped
    return style(pick, mesh, abstract)


def _spec(pick: Random, axes: list[str], rank: int, part: float = 0.7) -> PartitionSpec:
    dims: list[list[str]] = [[] for _ in range(rank)]
    for axis in pick.sample(axes, len(axes)):
        if chance(pick, part):
            dims[pick.randrange(rank)].append(axis)
    return PartitionSpec(*(tuple(d) if len(d) > 1 else d[0] if d else None for d in dims))


def _constrained(pick: Random, mesh: Mesh, abstract: AbstractMesh) -> Program:
    shape = [max(1, n) for n in sizes(pick, 2, 200)]
    x, w = values(pick, shape), values(pick, [shape[1], 6])
    axes = [name for name, _ in mesh.axes]
    specs = [NamedSharding(abstract, _spec(pick, axes, 2)) for _ in range(3)]

    def function(a, b):
        a = lax.with_sharding_constraint(a * 2, specs[0])
        c = lax.with_sharding_constraint(jnp.tanh(a @ b), specs[1])
        c, d = lax.optimization_barrier((c, a))
        return lax.with_sharding_constraint(c - c.max(0), specs[2]), jnp.sum(d, 1)

    return Program(function, [x, w], f"constraints {[s.spec for s in specs]}", mesh=mesh)


def _mapped(pick: Random, mesh: Mesh, abstract: AbstractMesh) -> Program:
    axes = [name for name, _ in mesh.axes]
    chosen = pick.sample(axes, pick.randint(1, len(axes)))
    across = chosen[0]
    size = mesh.size(across)
    counts = [1, 1]
    spec = _spec(pick, chosen, 2, 1.1)  # all of them: results must not differ between copies
    for dim, entry in enumerate(spec):
        for axis in (entry,) if isinstance(entry, str) else entry or ():
            counts[dim] *= mesh.size(axis)
    local = [pick.choice([1, 2, 3]) * (size if dim == 0 else 1) for dim in range(2)]
    shape = [n * count for n, count in zip(local, counts, strict=True)]
    x = values(pick, shape, pick.choice([F32, F32, np.dtype("i4")]))
    steps = pick.sample(list(BODIES), 2)

    @partial(
        jax.shard_map,
        mesh=abstract,
        in_specs=spec,
        out_specs=spec,
        axis_names=set(chosen),
        check_vma=False,
    )
    def body(a):
        for step in steps:
            a = BODIES[step](a, across, size)
        return a

    def function(a):
        return body(a * 2) + 1

    # One device cannot run the body: NumPy plays the devices.
    expected = _play(x * 2, spec, mesh, steps, across, size) + 1
    note = f"shard_map over {chosen} {spec} {steps} along {across}"
    return Program(function, [x], note, mesh=mesh, expected=[expected.astype(x.dtype)])


def _ring(size: int) -> list[tuple[int, int]]:
    return [(k, (k + 1) % size) for k in range(size)]


BODIES = {
    "psum": lambda a, name, size: lax.psum(a, name),
    "pmax": lambda a, name, size: lax.pmax(a, name),
    "permute": lambda a, name, size: lax.ppermute(a, name, _ring(size)),
    "index": lambda a, name, size: a * (1 + lax.axis_index(name)).astype(a.dtype),
    "gather": lambda a, name, size: lax.all_gather(a, name, axis=1, tiled=True)[:, ::size],
    "scatter": lambda a, name, size: jnp.repeat(
        lax.psum_scatter(a, name, scatter_dimension=0, tiled=True), size, 0
    ),
    "exchange": lambda a, name, size: lax.all_to_all(a, name, 0, 0, tiled=True),
    "local": lambda a, name, size: a - a[::-1],
}  # fmt: skip


def _play(
    x: np.ndarray, spec: PartitionSpec, mesh: Mesh, steps: list[str], across: str, size: int
) -> np.ndarray:
    """Do what the body does, on the blocks of all devices."""
    devices = range(mesh.num_devices)
    places = [mesh.coordinates(device) for device in devices]
    cuts = [_cut(x.shape, spec, mesh, place) for place in places]
    blocks = [x[cut] for cut in cuts]
    for step in steps:
        groups = [
            sorted(
                (d for d in devices if _others(places[d], across) == _others(places[e], across)),
                key=lambda d: places[d][across],
            )
            for e in devices
        ]
        blocks = [
            PLAYED[step]([blocks[d] for d in groups[e]], places[e][across], size) for e in devices
        ]
    out = np.zeros_like(x)
    for cut, block in zip(cuts, blocks, strict=True):
        out[cut] = block
    return out


def _others(place: dict[str, int], across: str) -> dict[str, int]:
    return {name: index for name, index in place.items() if name != across}


def _cut(
    shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh, place: dict[str, int]
) -> tuple[slice, ...]:
    out = []
    for length, entry in zip(shape, spec, strict=True):
        index, count = 0, 1
        for axis in (entry,) if isinstance(entry, str) else entry or ():
            index, count = index * mesh.size(axis) + place[axis], count * mesh.size(axis)
        out.append(slice(index * length // count, (index + 1) * length // count))
    return tuple(out)


def _parts(blocks: list[np.ndarray], at: int, size: int) -> np.ndarray:
    return np.split(sum(blocks), size)[at]


PLAYED = {
    "psum": lambda b, at, size: sum(b),
    "pmax": lambda b, at, size: np.maximum.reduce(b),
    "permute": lambda b, at, size: b[(at - 1) % size],
    "index": lambda b, at, size: b[at] * (1 + at),
    "gather": lambda b, at, size: np.concatenate(b, 1)[:, ::size],
    "scatter": lambda b, at, size: np.repeat(_parts(b, at, size), size, 0),
    "exchange": lambda b, at, size: np.concatenate([np.split(c, size)[at] for c in b]),
    "local": lambda b, at, size: b[at] - b[at][::-1],
}
