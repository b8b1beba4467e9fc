"""Meshes and shardings, drawn."""

from __future__ import annotations

from random import Random

from generate.draw import chance, permutation
from pai.runtime.mesh import AxisRef, Mesh, Sharding

MESHES = [
    *((n,) for n in (2, 3, 4, 5, 6, 7, 8)),
    *((2, 2), (2, 3), (3, 2), (2, 4), (4, 2), (2, 2), (2, 2, 2), (4, 2), (3, 2), (8,), (4,)),
    *((1, 4), (2, 1, 3), (7, 1)),
]


def draw_mesh(pick: Random) -> Mesh:
    """Return a mesh of one to three axes and at most eight devices, in any order at times."""
    mesh = Mesh(tuple(zip("xyz", pick.choice(MESHES), strict=False)))
    if chance(pick, 0.12):
        return Mesh(mesh.axes, tuple(permutation(pick, mesh.num_devices)))
    return mesh


def draw_pieces(pick: Random, mesh: Mesh) -> list[AxisRef]:
    """Return the mesh's axes; some of composite size are cut into two sub-axes."""
    out: list[AxisRef] = []
    for name, size in mesh.axes:
        cuts = [n for n in (2, 3, 4) if n < size and size % n == 0]
        if cuts and chance(pick, 0.2):
            cut = pick.choice(cuts)
            out += [AxisRef(name, 1, cut), AxisRef(name, cut, size // cut)]
        else:
            out.append(AxisRef(name))
    if any(piece.sub_size for piece in out):  # Shardy looks past axes of size 1 between sub-axes
        out = [piece for piece in out if piece.size(mesh) > 1]
    return out


def draw_sharding(pick: Random, mesh: Mesh, pieces: list[AxisRef], rank: int) -> Sharding:
    """Lay some of the axes, in any order, over the dimensions."""
    dims: list[list[AxisRef]] = [[] for _ in range(rank)]
    for piece in pick.sample(pieces, len(pieces)):
        if rank and chance(pick, 0.75):
            dims[pick.randrange(rank)].append(piece)
    return Sharding(tuple(tuple(_joined(mesh, axes)) for axes in dims))


def _joined(mesh: Mesh, axes: list[AxisRef]) -> list[AxisRef]:
    """Write neighbouring sub-axes as the one they make, as Shardy wants it."""
    out: list[AxisRef] = []
    for axis in axes:
        last = out[-1] if out else None
        if last is None or last.name != axis.name or last.sub_size is None:
            out.append(axis)
        elif last.pre_size * last.sub_size == axis.pre_size:
            size = last.sub_size * (axis.sub_size or 1)
            whole = size == mesh.size(axis.name)
            out[-1] = AxisRef(axis.name) if whole else AxisRef(axis.name, last.pre_size, size)
        else:
            out.append(axis)
    return out
