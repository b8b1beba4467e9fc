"""Whether a step may be cut into microbatches: sharding over a time axis.

The step is partitioned over a mesh of the one axis ``time``, with the inputs split along the batch
and everything else whole. Then each "device" is a microbatch, and what would be communicated is
what microbatches have to know of each other. A sum over them that only values of the whole step
follow (the update, the norm of the gradients, the loss) is an accumulator: it can be added up as
microbatches pass. What microbatches need of each other and that follows from the inputs alone, as
the number of tokens that a loss counts, can be made before the first of them: it is a prologue.
Whatever else a microbatch needs from the others before it can go on is not possible: statistics of
a batch normalization, a softmax or a product over the batch. A mean over the batch divides by the
size of the whole batch in either case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pai.dialects import sdy
from pai.dialects.mlir import ir, parse, to_text
from pai.dialects.program import Role, Signature, Value
from pai.passes.partition import partition
from pai.passes.partition.annotations import unsharded
from pai.passes.partition.collectives.common import body_kind, bytes_of, collectives, definition
from pai.passes.partition.fold import without_middle_layers
from pai.passes.partition.fold_reduce import MARK
from pai.passes.partition.report import LocalModule
from pai.passes.rewrite import main_function, walk, where
from pai.passes.strategy.candidates import input_extents
from pai.passes.strategy.pipeline.flow import Flow
from pai.runtime.mesh import AxisRef, Mesh, Sharding

TIME = "time"
_NUMBERED = re.compile(rf"{MARK}:(\d+):0 \([^)]*\)")


@dataclass(frozen=True)
class Accumulator:
    """A sum over microbatches.

    Args:
        where: the user's place of the operation that makes the addends.
        num_bytes: of the sum.
        dtype: its element type.
    """

    where: str
    num_bytes: int
    dtype: str


@dataclass(frozen=True)
class Prologue:
    """A value of the whole batch's inputs alone that every microbatch needs.

    Args:
        op: the operation that makes what is summed or gathered.
        where: the user's place of it.
        num_bytes: of the value.
    """

    op: str
    where: str
    num_bytes: int


@dataclass(frozen=True)
class Offence:
    """Something that needs the whole batch.

    Args:
        op: the operation that makes what other microbatches would have to know.
        where: the user's place of it.
        why: one sentence.
    """

    op: str
    where: str
    why: str


@dataclass(frozen=True)
class Legality:
    """Whether, and with what accumulators, a step may be cut into microbatches.

    Args:
        batch: size of the batch; 0 when the inputs have none in common.
        accumulators: in program order.
        prologue: what to make of the whole batch's inputs before the first microbatch.
        offences: why not, in program order; none when it is legal.
    """

    batch: int
    accumulators: tuple[Accumulator, ...] = ()
    prologue: tuple[Prologue, ...] = ()
    offences: tuple[Offence, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether microbatches, behind the prologue if there is one, give the same step."""
        return not self.offences

    @property
    def accumulator_bytes(self) -> int:
        """Bytes of all accumulators, unsharded."""
        return sum(accumulator.num_bytes for accumulator in self.accumulators)


def microbatching(module: ir.Module, signature: Signature) -> Legality:
    """Return whether the step in ``module`` may be cut into microbatches along its batch.

    Args:
        module: simplified StableHLO, one function; it is not changed, shardings in it are ignored.
        signature: its arguments and results; dimension 0 of the inputs is the batch.

    Raises:
        UnsupportedOp, PassFailure: when the step cannot be partitioned.
    """
    batch = input_extents(signature).get(0, 0)
    if batch < 2:
        why = "the inputs have no first dimension in common that could be split"
        return Legality(batch, offences=(Offence("func.func", "@main", why),))
    pieces = next(n for n in range(2, batch + 1) if batch % n == 0)
    copy = parse(to_text(module, locations=True), "step", module.context)
    manual = _drop_shardings(copy)
    if manual is not None:
        why = "its body is laid out by hand over devices"
        return Legality(batch, offences=(Offence(manual.name, where(manual), why),))
    _split_over_time(copy, signature, batch, pieces)
    local = partition(copy, Mesh(((TIME, pieces),)), gather_factors=False)
    return _judge(local, signature, batch)


def folded_microbatching(module: ir.Module, signature: Signature) -> Legality:
    """Return the same as ``microbatching``, from a few of the layers that repeat.

    Only the accumulators, or the offences, of those layers are listed.
    """
    reduced = without_middle_layers(module)
    if reduced is not None:
        part = Signature(
            tuple(signature.arguments[i] for i in reduced.arguments),
            tuple(signature.results[i] for i in reduced.results),
        )
        return _named(microbatching(reduced.module, part), module)
    return microbatching(module, signature)


def _named(found: Legality, module: ir.Module) -> Legality:
    """Return what was found in a few layers with the whole module's locations."""
    block = main_function(module).regions[0].blocks[0]
    operations, first = list(block.operations), len(block.arguments)

    def told(text: str) -> str:
        return _NUMBERED.sub(lambda node: where(operations[int(node[1]) - first].operation), text)

    offences = (Offence(o.op, told(o.where), told(o.why)) for o in found.offences)
    accumulators = (replace(a, where=told(a.where)) for a in found.accumulators)
    prologue = (replace(p, where=told(p.where)) for p in found.prologue)
    return replace(
        found,
        accumulators=tuple(accumulators), prologue=tuple(prologue), offences=tuple(offences),
    )  # fmt: skip


def _split_over_time(module: ir.Module, signature: Signature, batch: int, pieces: int) -> None:
    """Put the shardings on ``@main``: inputs split along the batch, the rest closed."""
    sdy.set_mesh(module, Mesh(((TIME, pieces),)))
    main = main_function(module)
    with module.context:
        given = {}
        for index, value in enumerate(signature.arguments):
            dims: list[tuple[AxisRef, ...]] = [()] * len(value.shape)
            if _is_split(value, batch):
                dims[0] = (AxisRef(TIME),)
            given[index] = sdy.sharding_attr(Sharding(tuple(dims)))
        sdy.set_argument_shardings(main, given)
        sdy.set_result_shardings(
            main,
            {
                index: sdy.sharding_attr(Sharding.replicated(len(value.shape)))
                for index, value in enumerate(signature.results)
                if value.updates or value.shape[:1] != (batch,)
            },
        )


def _is_split(value: Value, batch: int) -> bool:
    return value.role is Role.INPUT and value.shape[:1] == (batch,)


def _drop_shardings(module: ir.Module) -> ir.Operation | None:
    """Remove what the module says of sharding; return an operation that cannot do without."""
    for op in list(walk(module.operation)):
        if op.name in ("sdy.sharding_constraint", "sdy.reshard"):
            op.results[0].replace_all_uses_with(op.operands[0])
            op.erase()
        elif op.name == "sdy.sharding_group":
            op.erase()
        elif op.name.startswith("sdy.") and op.name != "sdy.mesh":
            return op
    for mesh in list(sdy.mesh_ops(module)):
        mesh.operation.erase()
    unsharded(module)
    return None


def _judge(local: LocalModule, signature: Signature, batch: int) -> Legality:
    """Sort the collectives of the partitioned step."""
    flow = Flow(local, [i for i, v in enumerate(signature.arguments) if _is_split(v, batch)])
    accumulators: list[Accumulator] = []
    prologue: list[Prologue] = []
    offences: list[Offence] = []
    for op in collectives(local.module):
        for operand, result in zip(op.operands, op.results, strict=True):
            why = _why_not(op, result, flow)
            maker = definition(operand) or op
            if not why:
                dtype = str(ir.RankedTensorType(result.type).element_type)
                accumulators.append(Accumulator(where(maker), bytes_of(result), dtype))
            elif result in flow.of_state:
                offences.append(Offence(maker.name, where(maker), why))
            else:
                prologue.append(Prologue(maker.name, where(maker), bytes_of(result)))
    return Legality(batch, tuple(accumulators), tuple(prologue), tuple(dict.fromkeys(offences)))


def _why_not(op: ir.Operation, result: ir.Value, flow: Flow) -> str:
    """Return why a value that microbatches share is no accumulator, "" when it is one."""
    kind = op.name.removeprefix("stablehlo.")
    if kind != "all_reduce":
        return f"its values of the whole batch are needed at once (an {kind} over time)"
    if (body := body_kind(op)) != "add":
        return f"its {body} over the whole batch is no sum"
    user = flow.microbatch_user(result)
    if user is not None:
        return f"every microbatch needs its sum over the whole batch: {where(user)}"
    user = flow.nonlinear_in_loop(op, result)
    if user is not None:
        return f"a loop needs its sum over the whole batch in every iteration: {where(user)}"
    return ""
