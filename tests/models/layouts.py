"""The layouts people give models on a mesh, and programs annotated with them.

A layout says which mesh axes split which logical dimension. It applies to parameters, to the
moments of the optimizer, which are laid out as their parameters, to the inputs and, through
``constrain``, to the activations.

On a mesh of several axes the first is for data and the others are for the model; on a mesh of
one axis a layout uses it for what it is named after, and the batch is whole.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from pai.dialects.mlir import context, func, parse, to_text
from pai.dialects.sdy import (
    set_argument_shardings,
    set_mesh,
    set_result_shardings,
    sharding_attr,
)
from pai.runtime.mesh import AxisRef, Mesh, Sharding

from . import MODELS
from .common import Constrain, identity, leaves
from .step import arguments, forward_pass, names, training_step

Spec = tuple[tuple[str, ...], ...]

AXES = ("x", "y", "z")
BATCH = 8
MESHES = ((8,), (4, 2), (2, 2, 2), (3, 2))
LAYOUTS = ("data", "zero3", "megatron", "vocabulary", "sequence", "expert", "spatial", "random")

ACTIVATIONS: dict[str, tuple[str | None, ...]] = {
    "residual": ("batch", "stream", None),
    "hidden": ("batch", None, "hidden"),
    "heads": ("batch", None, "heads", None),
    "logits": ("batch", "stream", "vocabulary"),
    "dispatched": (None, "batch", None, None),
    "experts": ("experts", "groups", None, None),
    "expert_hidden": ("experts", "groups", None, "hidden"),
    "image": ("batch", "height", "columns", None),
    "channels": ("batch", "height", "columns", "hidden"),
    "pixels": ("batch", "height", "columns", "vocabulary"),
    "vector": ("batch", None),
    "gates": ("batch", None, "hidden"),
    "classes": ("batch", "vocabulary"),
}
"""The logical dimensions of the activations that models name."""

TEXT = frozenset({"gpt2", "llama", "moe", "bert", "t5", "lstm"})
WITHOUT_STREAM = frozenset({"resnet", "unet", "lstm"})


def skipped(model: str, layout: str) -> str | None:
    """Return why a layout does not apply to a model, or None when it does."""
    if layout == "spatial" and model in TEXT:
        return "no image"
    if layout == "sequence" and model in WITHOUT_STREAM:
        return "no residual stream along a sequence"
    if layout == "expert" and model != "moe":
        return "no experts"
    return None


def cells() -> list[tuple[str, str, tuple[int, ...], bool]]:
    """Return every (model, layout, mesh, training step) that applies."""
    return [
        (model, layout, mesh, train)
        for model in MODELS
        for train in (False, True)
        for layout in LAYOUTS
        if not skipped(model, layout)
        for mesh in MESHES
    ]


def rules(layout: str, mesh: Mesh) -> Mapping[str, tuple[str, ...]]:
    """Return the mesh axes that split each logical dimension."""
    axes = tuple(name for name, _ in mesh.axes)
    data, model = (axes[:1], axes[1:]) if len(axes) > 1 else ((), axes)
    tensor = {"batch": data, "heads": model, "hidden": model}
    split = {
        "data": {"batch": axes},
        "zero3": {"batch": axes},
        "megatron": tensor,
        "vocabulary": {"batch": data, "vocabulary": model},
        "sequence": {**tensor, "stream": model},
        "expert": _expert_rules(axes),
        "spatial": {"batch": data, "height": model[:1], "columns": model[1:]},
        "random": {},
    }[layout]
    return {"groups": split.get("batch", ()), **split}


def _expert_rules(axes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Split tokens over all axes but a third, experts over the last of those."""
    both = axes[:2]
    groups = both[:-1]
    return {"batch": both, "experts": both[-1:], "groups": groups, "hidden": axes[2:]}


def spec_of(logical: Sequence[str | None], axes: Mapping[str, tuple[str, ...]]) -> Spec:
    """Return the axes of each dimension."""
    return tuple(axes.get(name, ()) if name else () for name in logical)


def widest(shape: Sequence[int], mesh: Mesh) -> Spec:
    """Split the largest dimension that all devices divide over all axes (ZeRO-3)."""
    axes = tuple(name for name, _ in mesh.axes)
    fitting = [d for d, size in enumerate(shape) if size % mesh.num_devices == 0]
    best = max(fitting, key=lambda d: shape[d], default=None)
    return tuple(axes if dim == best else () for dim in range(len(shape)))


def drawn(name: str, shape: Sequence[int], mesh: Mesh) -> Spec:
    """Return a sharding drawn for this name: any axes on any dimensions, divisible or not."""
    rng = np.random.default_rng(zlib.crc32(f"{name} {mesh.axes}".encode()))
    dims: list[tuple[str, ...]] = [()] * len(shape)
    for axis in rng.permutation(len(mesh.axes)):
        place = int(rng.integers(-1, len(shape)))
        if place >= 0:
            dims[place] = (*dims[place], mesh.axes[axis][0])
    return tuple(dims)


@dataclass(frozen=True)
class Case:
    """A program and its layout.

    Args:
        function: the training step or forward pass, constraints included.
        arguments: its arguments: trees of NumPy arrays, or of shapes.
        names: of each flattened argument (`step.names`).
        specs: the axes of each dimension of each flattened argument.
        result_specs: the same of each flattened result; None where propagation chooses.
        mesh: the devices.
        text: StableHLO with the mesh and all shardings, as JAX would lower it for Shardy.
        constraints: (name, spec) of the constraints applied to activations, in order.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    names: tuple[str, ...]
    specs: tuple[Spec, ...]
    result_specs: tuple[Spec | None, ...]
    mesh: Mesh
    text: str
    constraints: tuple[tuple[str, Spec], ...] = field(default=())

    @property
    def flat(self) -> list[np.ndarray]:
        """The arguments as a flat list."""
        return [np.asarray(leaf) for leaf in jax.tree.leaves(self.arguments)]


def load(model: str) -> ModuleType:
    """Return a model's module."""
    return importlib.import_module(f"{__package__}.{model}")


def case(
    model: str,
    layout: str,
    mesh_sizes: Sequence[int],
    *,
    train: bool = True,
    config: Any = None,
    size: int = BATCH,
    only_shapes: bool = False,
    seed: int = 0,
) -> Case:
    """Return a model's training step or forward pass in a layout.

    Args:
        model: one of MODELS.
        layout: one of LAYOUTS.
        mesh_sizes: sizes of the axes x, y, z.
        train: the training step, else the forward pass.
        config: the model's Config; the small one by default.
        size: batch size.
        only_shapes: shapes for arguments, so that real sizes take no memory.
        seed: of the shardings of layout random.

    Raises:
        ValueError: when the layout does not apply to the model.
    """
    if reason := skipped(model, layout):
        raise ValueError(f"layout {layout} does not apply to {model}: {reason}")
    module = load(model)
    config = config or module.Config.small()
    mesh = Mesh(tuple(zip(AXES, mesh_sizes, strict=False)))
    applied: list[tuple[str, Spec]] = []
    function = build(module, config, constrainer(layout, mesh, applied), train=train)
    given = arguments(module, config, size, train=train, only_shapes=only_shapes)
    labels = names(module, config, train=train)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(given)]
    logical = _logical(module, config)
    specs = [
        drawn(f"{seed} {name}", shape, mesh)
        if layout == "random"
        else _argument_spec(name, shape, logical, layout, mesh)
        for name, shape in zip(labels, shapes, strict=True)
    ]
    text, results = _lower(function, given)
    outputs = _result_specs(results, labels, specs, train=train)
    return Case(
        function, given, tuple(labels), tuple(specs), tuple(outputs), mesh,
        annotated(text, mesh, specs, outputs, _priorities(labels, layout)), tuple(applied),
    )  # fmt: skip


def build(module: ModuleType, config: Any, constrain: Constrain, *, train: bool) -> Any:
    """Return the training step or the forward pass."""
    return (training_step if train else forward_pass)(module, config, constrain)


def constrainer(layout: str, mesh: Mesh, applied: list[tuple[str, Spec]]) -> Constrain:
    """Return the hook that puts a layout's constraints on activations."""
    if layout == "random":
        return identity
    axes = rules(layout, mesh)
    abstract = AbstractMesh(
        tuple(size for _, size in mesh.axes),
        tuple(name for name, _ in mesh.axes),
        axis_types=(AxisType.Auto,) * len(mesh.axes),
    )

    def constrain(value: jax.Array, name: str) -> jax.Array:
        spec = spec_of(ACTIVATIONS[name], axes)
        applied.append((name, spec))
        sharding = NamedSharding(abstract, PartitionSpec(*(dims or None for dims in spec)))
        return jax.lax.with_sharding_constraint(value, sharding)

    return constrain


def _logical(module: ModuleType, config: Any) -> dict[str, tuple[str | None, ...]]:
    """Return the logical dimensions of parameters, statistics and inputs by name."""
    out = {f"params/{path}": weight.axes for path, weight in leaves(module.weights(config))}
    out |= {f"batch/{name}": axes for name, axes in module.INPUTS.items()}
    if hasattr(module, "statistics"):
        rest = leaves(module.statistics(config))
        out |= {f"statistics/{path}": weight.axes for path, weight in rest}
    return out


def _argument_spec(
    name: str,
    shape: tuple[int, ...],
    logical: Mapping[str, tuple[str | None, ...]],
    layout: str,
    mesh: Mesh,
) -> Spec:
    role, _, path = name.partition("/")
    if role == "count":
        return ()
    if layout == "zero3" and role != "batch":
        return widest(shape, mesh)
    kind = "params" if role in ("m", "v") else role
    return spec_of(logical[f"{kind}/{path}"], rules(layout, mesh))


def _lower(function: Any, given: tuple[Any, ...]) -> tuple[str, list[Any]]:
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), given)
    traced = jax.jit(function, keep_unused=True).trace(*shapes)
    results = jax.tree.leaves(traced.out_info)
    return traced.lower(lowering_platforms=("cpu",)).as_text(), results


def _result_specs(
    results: Sequence[Any], labels: Sequence[str], specs: Sequence[Spec], *, train: bool
) -> list[Spec | None]:
    """Lay new parameters, moments and statistics out as the old ones."""
    if not train:
        return [None] * len(results)
    kept = [s for n, s in zip(labels, specs, strict=True) if not n.startswith("batch/")]
    return [None, *kept]


def _priorities(labels: Sequence[str], layout: str) -> list[int | None]:
    """Let the batch of ZeRO-3 spread before the parameters: those are only stored in shards."""
    late = layout == "zero3"
    return [1 if late and not name.startswith("batch/") else None for name in labels]


def annotated(
    text: str,
    mesh: Mesh,
    specs: Sequence[Spec],
    results: Sequence[Spec | None],
    priorities: Sequence[int | None],
) -> str:
    """Return the text of a module with these shardings on ``@main``.

    JAX refuses in_shardings that do not divide a dimension, so they are put in afterwards; it has
    no way to say a priority (of Shardy's propagation) at all.
    """
    module = parse(text, "jax", context())
    set_mesh(module, mesh)
    (main,) = [
        op
        for op in module.body.operations
        if isinstance(op, func.FuncOp) and op.name.value == "main"
    ]
    with module.context:
        given = {
            index: sharding_attr(sharding_of(spec), priorities=[priority] * len(spec))
            for index, (spec, priority) in enumerate(zip(specs, priorities, strict=True))
        }
        set_argument_shardings(main, given)
        late = max((p for p in priorities if p is not None), default=None)
        wanted = {
            index: sharding_attr(sharding_of(result), priorities=[late] * len(result))
            for index, result in enumerate(results)
            if result is not None
        }
        set_result_shardings(main, wanted)
    return to_text(module)


def sharding_of(spec: Spec) -> Sharding:
    """Return a spec as a Sharding."""
    return Sharding(tuple(tuple(AxisRef(name) for name in axes) for axes in spec))
