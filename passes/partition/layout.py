"""Layouts: shardings over a mesh whose axes are split into prime atoms.

Inside the localizer every mesh axis is a list of *atoms* of prime size, so that a sub-axis is a
run of atoms and comparing shardings is comparing tuples of small integers. A ``Layout`` holds,
per dimension, the atoms that split it, major to minor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pai.runtime.errors import InvalidSharding
from pai.runtime.mesh import AxisRef, Mesh, Sharding

Atoms = tuple[int, ...]
Layout = tuple[Atoms, ...]


@dataclass(frozen=True)
class Atom:
    """A prime piece of a mesh axis: ``place // stride % size`` is a device's place along it."""

    axis: str
    pre_size: int
    size: int
    stride: int


def prime_factors(number: int) -> list[int]:
    """Return the prime factors of ``number``, ascending."""
    out, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            out.append(divisor)
            number //= divisor
        divisor += 1
    return out


def replicated(rank: int) -> Layout:
    """Return the layout of a tensor that every device holds whole."""
    return ((),) * rank


@dataclass(frozen=True)
class Grid:
    """The devices of a mesh, seen through the atoms of its axes.

    Args:
        mesh: the mesh.
        cuts: per axis, sizes where some sub-axis begins or ends; each must divide the next.
        table: the place of each device; empty where the place is the device number, which holds
            too when the order of the devices only permutes the atoms.
    """

    mesh: Mesh
    cuts: dict[str, frozenset[int]] = field(default_factory=dict)
    atoms: tuple[Atom, ...] = ()
    table: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Split the axes into atoms."""
        atoms: list[Atom] = []
        stride = self.mesh.num_devices
        for name, size in self.mesh.axes:
            pre = 1
            for cut in sorted(self.cuts.get(name, frozenset()) | {1, size}):
                if cut % pre:
                    raise InvalidSharding(
                        f"sub-axes of '{name}' cut it at {pre} and at {cut}, which do not nest"
                    )
                for prime in prime_factors(cut // pre):
                    stride //= prime
                    atoms.append(Atom(name, pre, prime, stride))
                    pre *= prime
        permuted = self._strides_of_devices(atoms)
        if permuted is None:
            places = tuple(self.mesh.position(device) for device in range(self.num_devices))
            object.__setattr__(self, "table", places)
        object.__setattr__(self, "atoms", tuple(permuted or atoms))

    def _strides_of_devices(self, atoms: Sequence[Atom]) -> list[Atom] | None:
        """Return the atoms with strides in device numbers, or None when some atom has none."""
        if not self.mesh.device_ids:
            return list(atoms)
        devices = np.arange(self.num_devices)
        places = np.argsort(self.mesh.device_ids)
        strides = [s for s in range(1, self.num_devices) if self.num_devices % s == 0]
        out = []
        for atom in atoms:
            wanted = places // atom.stride % atom.size
            fits = [s for s in strides if (devices // s % atom.size == wanted).all()]
            if not fits:
                return None
            out.append(replace(atom, stride=fits[0]))
        return out

    def place(self, device: int) -> int:
        """Return the number whose digits are the places of ``device`` along the atoms."""
        return self.table[device] if self.table else device

    @property
    def num_devices(self) -> int:
        """The number of devices."""
        return self.mesh.num_devices

    def count(self, atoms: Atoms) -> int:
        """Return the number of shards that ``atoms`` make."""
        return math.prod(self.atoms[a].size for a in atoms)

    def index(self, atoms: Atoms, device: int) -> int:
        """Return the shard number of ``device`` along ``atoms``."""
        out, place = 0, self.place(device)
        for a in atoms:
            atom = self.atoms[a]
            out = out * atom.size + place // atom.stride % atom.size
        return out

    def groups(self, atoms: Atoms) -> list[list[int]]:
        """Return the devices that differ only along ``atoms``, each group in shard order."""
        rest = tuple(a for a in range(len(self.atoms)) if a not in atoms)
        out: dict[int, list[int]] = {}
        for device in range(self.num_devices):
            out.setdefault(self.index(rest, device), []).append(device)
        return [sorted(group, key=lambda d: self.index(atoms, d)) for group in out.values()]

    def runs(self, atoms: Atoms) -> list[tuple[int, int]]:
        """Return (stride, size) of the runs of ``atoms`` that lie side by side."""
        out: list[tuple[int, int]] = []
        for a in atoms:
            atom = self.atoms[a]
            if out and out[-1][0] == atom.stride * atom.size:
                out[-1] = (atom.stride, out[-1][1] * atom.size)
            else:
                out.append((atom.stride, atom.size))
        return out

    def local_shape(self, shape: Sequence[int], layout: Layout) -> list[int]:
        """Return the shape of one shard, padding included."""
        return [
            -(-size // self.count(atoms)) if atoms else size
            for size, atoms in zip(shape, layout, strict=True)
        ]

    def atoms_of(self, ref: AxisRef) -> Atoms:
        """Return the atoms of a mesh axis or sub-axis."""
        size = self.mesh.size(ref.name) if ref.sub_size is None else ref.sub_size
        end = ref.pre_size * size
        return tuple(
            index
            for index, atom in enumerate(self.atoms)
            if atom.axis == ref.name and ref.pre_size <= atom.pre_size and atom.pre_size < end
        )

    def layout(self, sharding: Sharding) -> Layout:
        """Return the layout of a sharding."""
        return tuple(
            tuple(itertools.chain.from_iterable(self.atoms_of(ref) for ref in axes))
            for axes in sharding.dims
        )

    def sharding(self, layout: Layout) -> Sharding:
        """Return the sharding of a layout, with neighbouring atoms joined again."""
        return Sharding(tuple(tuple(self._refs(atoms)) for atoms in layout))

    def _refs(self, atoms: Atoms) -> list[AxisRef]:
        refs: list[AxisRef] = []
        for a in atoms:
            atom = self.atoms[a]
            last = refs[-1] if refs else None
            if (
                last
                and last.name == atom.axis
                and last.pre_size * last.size(self.mesh) == atom.pre_size
            ):
                refs[-1] = AxisRef(atom.axis, last.pre_size, last.size(self.mesh) * atom.size)
            else:
                refs.append(AxisRef(atom.axis, atom.pre_size, atom.size))
        whole = [ref.sub_size == self.mesh.size(ref.name) for ref in refs]
        return [AxisRef(ref.name) if full else ref for ref, full in zip(refs, whole, strict=True)]

    def axis_names(self, atoms: Atoms) -> str:
        """Return the axes of ``atoms`` for a message."""
        return ",".join(
            ref.name if ref.sub_size is None else f"{ref.name}:({ref.pre_size}){ref.sub_size}"
            for ref in self._refs(atoms)
        )


def common_prefix(left: Atoms, right: Atoms) -> Atoms:
    """Return the longest common prefix."""
    out = []
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        out.append(a)
    return tuple(out)


def used(layout: Layout) -> set[int]:
    """Return the atoms that shard any dimension."""
    return {a for atoms in layout for a in atoms}
