"""The layouts that the search considers: data, tensor and storage sharding, and their products.

A candidate uses up to three mesh axes whose sizes multiply to the number of devices:

- ``data``: the batch dimension of the inputs is split, with priority 0 (or, without weights being
  split, another dimension that the inputs share: the sequence, the rows of an image);
- ``model``: weights are split in column-row pairs (``tensor_parallel.py``);
- ``spare``: nothing is split, the devices repeat each other's work.

*zero* also splits what a candidate leaves whole of the parameters (and of the optimizer state)
over ``data`` with priority 1, as storage that is gathered where it is used (S. Rajbhandari et al.,
"ZeRO", SC 2020); ``zero1`` does so for the optimizer state only.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.dialects.program import Role, Signature
from pai.passes.strategy.annotate import main_function
from pai.passes.strategy.plan import TensorLayout
from pai.passes.strategy.tensor_parallel import TensorSplit, split_weights
from pai.runtime.mesh import AxisRef, Mesh, Sharding

DATA, MODEL, SPARE = "data", "model", "spare"


@dataclass(frozen=True)
class Candidate:
    """One layout to model.

    Args:
        name: short and unique.
        mesh: its mesh.
        arguments: the layouts of arguments, in program order.
        data: size of the axis that splits the inputs (1: not split).
        extent: size of the input dimension that it splits.
        model: size of the axis that splits weights.
        storage: ``""``, ``zero`` or ``zero1``.
        tensor: the split of the weights, when ``model`` is above 1.
        dimension: the input dimension that ``data`` splits.
        values: the layouts of values inside.
    """

    name: str
    mesh: Mesh
    arguments: tuple[tuple[str, TensorLayout], ...]
    data: int = 1
    extent: int = 1
    model: int = 1
    storage: str = ""
    tensor: TensorSplit | None = None

    dimension: int = 0
    values: tuple[tuple[str, TensorLayout], ...] = ()

    @property
    def is_baseline(self) -> bool:
        """Whether it is a plain layout, all devices on one axis: always modelled in full."""
        return len(self.mesh.axes) == 1

    @property
    def family(self) -> tuple[bool, bool, str, bool]:
        """What is split, without how far."""
        return (self.data > 1, self.model > 1, self.storage, self.dimension > 0)


def input_extents(signature: Signature) -> dict[int, int]:
    """Return the dimensions, with their sizes above 1, that all inputs share.

    Dimension 0, the batch, has to be in every input that is no scalar; a later one in every input
    of enough dimensions.
    """
    shapes = [value.shape for value in signature.arguments if value.role is Role.INPUT]
    out = {}
    for dim in range(max(map(len, shapes), default=0)):
        sizes = {shape[dim] for shape in shapes if len(shape) > dim}
        if len(sizes) == 1 and max(sizes) > 1:
            out[dim] = max(sizes)
    return out


def enumerate_candidates(
    module: ir.Module, signature: Signature, devices: int, taken: frozenset[int]
) -> list[Candidate]:
    """Return the candidates for ``devices`` devices, the replicated one first.

    Args:
        module: the simplified global module.
        signature: its arguments.
        devices: number of devices.
        taken: numbers of the arguments that the model itself shards; left alone.
    """
    builder = _Builder(module, signature, taken)
    out = [Candidate("replicated", Mesh(((DATA, devices),)), ())]
    for data, model in _pairs(devices):
        if (data > 1 or model > 1) and (data == 1 or builder.batch > 1 or model == 1):
            out += builder.family(data, model, devices // (data * model))
    out += builder.later_dimensions(devices)
    unique: dict[tuple[object, ...], Candidate] = {}
    for candidate in out:
        unique.setdefault((candidate.mesh, candidate.arguments), candidate)
    return list(unique.values())


def user_mesh_candidates(
    module: ir.Module, signature: Signature, mesh: Mesh, taken: frozenset[int]
) -> list[Candidate]:
    """Return candidates over the mesh of a model that brings shardings of its own."""
    builder = _Builder(module, signature, taken)
    out = [Candidate("as the model says", mesh, ())]
    names: list[str | None] = [None, *(name for name, size in mesh.axes if size > 1)]
    for data, model, storage in itertools.product(names, names, ("", "zero")):
        if data != model and (data or not storage):
            out.append(builder.on_mesh(mesh, data, model, storage, vocabulary=False))
    unique: dict[tuple[object, ...], Candidate] = {}
    for candidate in out:
        unique.setdefault(candidate.arguments, candidate)
    return list(unique.values())


def _pairs(devices: int) -> list[tuple[int, int]]:
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    return [(d, m) for d in divisors for m in divisors if devices % (d * m) == 0]


class _Builder:
    def __init__(self, module: ir.Module, signature: Signature, taken: frozenset[int]) -> None:
        self.block = main_function(module).regions[0].blocks[0]
        self.arguments = signature.arguments
        self.taken = taken
        self.extents = input_extents(signature)
        self.batch = self.extents.get(0, 1)
        parameters = {v.shape for v in self.arguments if v.role is Role.PARAMETER}
        self.optimizer = frozenset(
            i
            for i, value in enumerate(self.arguments)
            if value.role is Role.STATE and value.shape in parameters
        )
        self.splits: dict[tuple[int, bool], TensorSplit] = {}

    def family(self, data: int, model: int, spare: int) -> list[Candidate]:
        """Return the candidates of one choice of axis sizes."""
        sizes = ((DATA, data), (SPARE, spare), (MODEL, model))
        mesh = Mesh(tuple((name, size) for name, size in sizes if size > 1))
        out = []
        storages = ["", "zero"] + (["zero1"] if self.optimizer else []) if data > 1 else [""]
        tables = (False, True) if model > 1 else (False,)
        for storage, vocabulary in itertools.product(storages, tables):
            if data > 1 and self.batch == 1 and not storage:
                continue
            axis = DATA if data > 1 else None
            out.append(
                self.on_mesh(
                    mesh, axis, MODEL if model > 1 else None, storage, vocabulary=vocabulary
                )
            )
        return [c for c in out if c.arguments and (c.model == 1 or (c.tensor and c.tensor.dims))]

    def later_dimensions(self, devices: int) -> list[Candidate]:
        """Return the candidates that split a later dimension of the inputs over all devices."""
        mesh = Mesh(((DATA, devices),))
        out = []
        for dim, extent in self.extents.items():
            layouts = []
            for index, value in enumerate(self.arguments):
                rank = len(value.shape)
                if value.role is Role.INPUT and rank > dim > 0 and index not in self.taken:
                    axes = [(AxisRef(DATA),) if d == dim else () for d in range(rank)]
                    priorities = tuple(0 if d == dim else None for d in range(rank))
                    layouts.append((value.name, TensorLayout(Sharding(tuple(axes)), priorities)))
            name = f"data={devices} on dimension {dim}"
            if layouts and devices > 1:
                out.append(Candidate(name, mesh, tuple(layouts), devices, extent, dimension=dim))
        return out

    def on_mesh(
        self, mesh: Mesh, data: str | None, model: str | None, storage: str, *, vocabulary: bool
    ) -> Candidate:
        """Return the candidate that splits the batch over ``data`` and weights over ``model``."""
        tensor = self.tensor(mesh.size(model), vocabulary) if model else None
        layouts = []
        for index, value in enumerate(self.arguments):
            if index not in self.taken:
                dim = tensor.dims.get(index) if tensor else None
                layout = self.layout(index, dim, mesh, data, model, storage)
                if layout is not None:
                    layouts.append((value.name, layout))
        parts = [f"{name}={size}" for name, size in mesh.axes]
        extra = [storage] if storage else []
        extra += ["vocabulary"] if vocabulary else []
        roles = [] if (data, model) in {(DATA, MODEL), (DATA, None), (None, MODEL)} else [
            f"batch on {data}, weights on {model}"
        ]  # fmt: skip
        return Candidate(
            " ".join([*parts, *extra, *roles]),
            mesh,
            tuple(layouts),
            mesh.size(data) if data and self.batch > 1 else 1,
            self.batch,
            mesh.size(model) if model else 1,
            storage,
            tensor,
        )

    def tensor(self, shards: int, vocabulary: bool) -> TensorSplit:
        key = (shards, vocabulary)
        if key not in self.splits:
            self.splits[key] = split_weights(
                self.block, self.is_weight, shards, vocabulary=vocabulary
            )
        return self.splits[key]

    def is_weight(self, index: int) -> bool:
        value = self.arguments[index]
        return value.role is Role.PARAMETER and index not in self.taken

    def layout(
        self,
        index: int,
        dim: int | None,
        mesh: Mesh,
        data: str | None,
        model: str | None,
        storage: str,
    ) -> TensorLayout | None:
        """Return the layout of one argument; None leaves it to propagation."""
        value = self.arguments[index]
        dims: list[tuple[AxisRef, ...]] = [()] * len(value.shape)
        priorities: list[int | None] = [None] * len(value.shape)
        if dim is not None and model is not None:
            dims[dim], priorities[dim] = (AxisRef(model),), 0
        if data is not None and self.is_batched(index):
            dims[0], priorities[0] = (AxisRef(data),), 0
        stored = storage == "zero" and value.role is Role.PARAMETER
        if data is not None and (stored or (storage and index in self.optimizer)):
            place = self.storage_dim(value.shape, mesh.size(data), dims)
            if place is not None:
                dims[place], priorities[place] = (AxisRef(data),), 1
        if not any(dims):
            return None
        return TensorLayout(Sharding(tuple(dims)), tuple(priorities))

    def is_batched(self, index: int) -> bool:
        value = self.arguments[index]
        if self.batch == 1 or not value.shape or value.shape[0] != self.batch:
            return False
        cache = value.role is Role.STATE and index not in self.optimizer
        return value.role is Role.INPUT or cache

    @staticmethod
    def storage_dim(
        shape: tuple[int, ...], shards: int, dims: list[tuple[AxisRef, ...]]
    ) -> int | None:
        """Return the largest free dimension that the shards divide; None when there is none."""
        free = [
            d
            for d, size in enumerate(shape)
            if not dims[d] and size >= shards and size % shards == 0
        ]
        return max(free, key=lambda d: (shape[d], -d)) if free else None
