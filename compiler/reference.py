"""The reference executor: StableHLO on XLA's CPU backend, for verification and tests only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxlib import xla_client

from pai.dialects.mlir import ir, parse, stablehlo, to_text
from pai.passes.rewrite import walk
from pai.runtime.errors import PassFailure

# Small programs spend their time in XLA's compiler: these options make it three to seven times
# quicker. The arithmetic is the same, up to the contraction and order of sums. XLA's algebraic
# simplifier (jaxlib 0.10.2) is off because it is wrong: it reads a dynamic_slice from the padded
# end of a value as one from the value itself, whose start is then clamped to other elements.
QUICK_COMPILE: Mapping[str, bool | int | str] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_disable_hlo_passes": "algsimp",
}


def run_reference(
    module_text: str,
    inputs: Sequence[np.ndarray],
    options: Mapping[str, bool | int | str] | None = None,
) -> list[np.ndarray]:
    """Run ``@main`` of a StableHLO module on one XLA CPU device.

    Args:
        module_text: the module, as text.
        inputs: one array per argument, with ml_dtypes for the types NumPy lacks.
        options: XLA's debug options by name, such as QUICK_COMPILE.

    Returns:
        One array per result.
    """
    return run_reference_spmd(module_text, [list(inputs)], options)[0]


def run_reference_spmd(
    module_text: str,
    inputs: Sequence[Sequence[np.ndarray]],
    options: Mapping[str, bool | int | str] | None = None,
) -> list[list[np.ndarray]]:
    """Run a local module, collectives included, on ``len(inputs)`` XLA CPU devices.

    Each device is a replica, so ``partition_id`` is read as ``replica_id`` and the collectives'
    channels are dropped. Needs as many CPU devices as inputs: set the environment variable
    ``XLA_FLAGS=--xla_force_host_platform_device_count=N`` before JAX starts.

    Args:
        module_text: the module, as text.
        inputs: per device, one array per argument.
        options: XLA's debug options by name, such as QUICK_COMPILE.

    Returns:
        Per device, one array per result.

    Raises:
        PassFailure: when there are too few devices.
    """
    count = len(inputs)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise PassFailure(
            f"the reference needs {count} CPU devices but JAX was started with {len(devices)}",
            hint=f"set XLA_FLAGS=--xla_force_host_platform_device_count={count}",
        )
    if count > 1:
        module_text = _as_replicas(module_text)
    choices = xla_client.CompileOptions()
    choices.num_replicas = count
    choices.device_assignment = xla_client.DeviceAssignment.create(np.arange(count).reshape(-1, 1))
    choices.env_option_overrides = list((options or {}).items())
    client = devices[0].client
    executable = client.compile_and_load(module_text, devices[:count], choices)
    mesh = jax.sharding.Mesh(np.array(devices[:count]), ("replica",))
    layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    with jax.enable_x64(True):
        arguments = [
            jax.make_array_from_single_device_arrays(
                np.shape(shards[0]),
                layout,
                [
                    jax.device_put(shard, device)
                    for shard, device in zip(shards, devices, strict=False)
                ],
            )
            for shards in zip(*inputs, strict=True)
        ]
        results = executable.execute_sharded(arguments).disassemble_into_single_device_arrays()
        return [[np.asarray(shards[i]) for shards in results] for i in range(count)]


def _as_replicas(module_text: str) -> str:
    """Return the text with partition ids read as replica ids and without channels.

    All_gathers of several values become one each: XLA's CPU backend concatenates the blocks of
    such a one in memory, whatever its dimension. Its reductions have no bitwise kinds and drop
    NaNs from maxima and minima: these become an exchange and operations. Integers of two bits
    travel in eight.
    """
    module = parse(module_text, "reference")
    for op in list(walk(module.operation)):
        for name in ("channel_handle", "channel_id", "use_global_device_ids"):
            if name in op.attributes:
                del op.attributes[name]
        if op.name == "stablehlo.all_gather" and len(op.operands) > 1:
            _split(op)
        elif op.name in ("stablehlo.all_reduce", "stablehlo.reduce_scatter") and _is_lacking(op):
            _expand(op)
    for op in list(walk(module.operation)):
        if op.name in _MOVES and str(op.operands[0].type.element_type) in ("i2", "ui2"):
            _widen(op)
    return to_text(module).replace("stablehlo.partition_id", "stablehlo.replica_id")


def _split(op: ir.Operation) -> None:
    """Replace a collective of several values by one for each."""
    names = [getattr(named, "name", named) for named in op.attributes]
    attributes = {name: op.attributes[name] for name in names}
    with op.location, ir.InsertionPoint(op):
        for operand, result in zip(op.operands, op.results, strict=True):
            new = ir.Operation.create(
                op.name, results=[result.type], operands=[operand], attributes=attributes
            )
            result.replace_all_uses_with(new.results[0])
    op.erase()


_MOVES = ("stablehlo.all_gather", "stablehlo.all_to_all", "stablehlo.collective_permute")


def _is_lacking(op: ir.Operation) -> bool:
    """Whether XLA's CPU backend cannot reduce as a collective's body says."""
    kind = _body(op)
    element = op.operands[0].type.element_type
    flag = str(element) == "i1"
    if kind in ("stablehlo.and", "stablehlo.or", "stablehlo.xor"):
        return not flag or kind == "stablehlo.xor"
    if str(element) in ("i2", "ui2"):
        return True
    extreme = kind in ("stablehlo.maximum", "stablehlo.minimum")
    return extreme and not isinstance(element, ir.IntegerType)


def _widen(op: ir.Operation) -> None:
    """Convert what a collective moves to eight bits, and back."""
    operand, result = op.operands[0], op.results[0]
    narrow = result.type
    wide = ir.Type.parse(str(narrow.element_type).replace("2", "8"), op.context)
    with op.location, ir.InsertionPoint(op):
        kind = ir.RankedTensorType.get(operand.type.shape, wide)
        op.operands[0] = stablehlo.ConvertOp(kind, operand).result
    with op.location, ir.InsertionPoint.after(op):
        result.set_type(ir.RankedTensorType.get(narrow.shape, wide))
        back = stablehlo.ConvertOp(narrow, result)
    result.replace_all_uses_except(back.result, back.operation)


def _body(op: ir.Operation) -> str:
    return str(op.regions[0].blocks[0].operations[0].operation.name)


def _expand(op: ir.Operation) -> None:
    """Replace a reduction by an exchange of the parts and their combination, in group order."""
    for operand, result in zip(op.operands, op.results, strict=True):
        with op.location, ir.InsertionPoint(op):
            parts = _parts(op, operand)
            total = parts[0]
            for part in parts[1:]:
                total = ir.Operation.create(
                    _body(op), results=[total.type], operands=[total, part]
                ).result
            shaped = stablehlo.ReshapeOp(result.type, total)
        result.replace_all_uses_with(shaped.result)
    op.erase()


def _parts(op: ir.Operation, operand: ir.Value) -> list[ir.Value]:
    """Return what this device combines: whole values for an all_reduce, else their blocks."""
    groups = op.attributes["replica_groups"]
    count = ir.RankedTensorType(groups.type).shape[1]
    i64 = ir.IntegerType.get_signless(64)
    if op.name == "stablehlo.all_reduce":
        dim, name, kind = 0, "stablehlo.all_gather", operand.type
        row = ir.RankedTensorType.get([1, *kind.shape], kind.element_type)
        operand = stablehlo.ReshapeOp(row, operand).result
        shape = [count, *kind.shape]
        attributes = {"all_gather_dim": ir.IntegerAttr.get(i64, 0)}
    else:
        dim, name = ir.IntegerAttr(op.attributes["scatter_dimension"]).value, "stablehlo.all_to_all"
        shape = list(operand.type.shape)
        attributes = {
            "split_dimension": ir.IntegerAttr.get(i64, dim),
            "concat_dimension": ir.IntegerAttr.get(i64, dim),
            "split_count": ir.IntegerAttr.get(i64, count),
        }
    moved = ir.Operation.create(
        name,
        results=[ir.RankedTensorType.get(shape, operand.type.element_type)],
        operands=[operand],
        attributes={**attributes, "replica_groups": groups},
    ).result
    size = shape[dim] // count
    parts = []
    for index in range(count):
        begin, end = [0] * len(shape), list(shape)
        begin[dim], end[dim] = index * size, (index + 1) * size
        parts.append(stablehlo.slice(moved, begin, end, [1] * len(shape)))
    return parts
