"""One walk over ``@main`` that emits instructions and gives every value a storage.

A value lives from the instruction that makes it to its last use. What a loop uses from outside
lives until the loop ends. Values that a loop carries live in fixed storages: the body writes their
next value there directly when the old one is dead by then, else it is copied at the end of the
body, all at once (two carried values may change places).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from pai.dialects.constants import constant_value, splat_value
from pai.dialects.mlir import ir
from pai.dialects.types import dtype_name, num_elements, shape_of
from pai.passes.rewrite import where
from pai.passes.schedule.collectives import COLLECTIVES, collective
from pai.passes.schedule.storage import Storage, Uses, block_of
from pai.runtime.dtypes import itemsize
from pai.runtime.errors import PassFailure
from pai.runtime.program import Call, Case, Constant, Copy, Fill, Instruction, While

FILL_BYTES = 64 << 10  # splat constants above this are filled in when needed, not stored


class Walker:
    """Emits the instructions of ``@main`` on storage numbers.

    Args:
        kernels: functions of the module by name.
        donated: numbers of the arguments that may be overwritten.

    Attributes:
        code: instructions; buffers are numbers of ``storages``.
        storages: all of them; those never touched have ``last < first``.
        arguments: storage number per argument of ``@main``.
        constants: large constants, in the order of the storages in space ``constant``.
    """

    def __init__(self, kernels: dict[str, ir.OpView], donated: set[int]) -> None:
        self.code: list[Instruction] = []
        self.storages: list[Storage] = []
        self.arguments: list[int] = []
        self.constants: list[Constant] = []
        self._kernels = kernels
        self._donated = donated
        self._uses = Uses()
        self._of: dict[ir.Value, Storage] = {}
        self._preferred: dict[ir.Value, Storage] = {}
        self._splats: dict[ir.Value, bytes] = {}
        self._constant_of: dict[tuple[str, bytes], Storage] = {}
        self._device: Storage | None = None
        self._clock = 0
        self._loops: list[tuple[int, set[Storage]]] = []  # start, what is used from outside

    def run(self, block: ir.Block) -> list[int]:
        """Emit ``@main`` and return the storage number of each result."""
        for number, value in enumerate(block.arguments):
            storage = self._new(value, "argument", number)
            storage.pinned = number not in self._donated
            self.arguments.append(storage.number)
        operands = self._block(block)
        return [self._result(value) for value in operands]

    def _result(self, value: ir.Value) -> int:
        """Return where a result of ``@main`` ends up; a splat constant is filled in."""
        storage = self._read(value)
        self._touch(storage, self._clock)
        return storage.number

    def _block(self, block: ir.Block) -> list[ir.Value]:
        """Emit a block; return the operands of its terminator."""
        self._uses.enter(block)
        operations = [op.operation for op in block.operations]
        for op in operations[:-1]:
            self._operation(op)
        self._clock += 1
        return list(operations[-1].operands)

    @contextmanager
    def _nested(self) -> Iterator[list[Instruction]]:
        """Collect the instructions emitted inside as a block of their own."""
        outer, self.code = self.code, []
        try:
            yield self.code
        finally:
            self.code = outer

    def _operation(self, op: ir.Operation) -> None:
        self._clock += 1
        match op.name:
            case "func.call":
                self._call(op)
            case "stablehlo.while":
                self._while(op)
            case "stablehlo.if" | "stablehlo.case":
                self._case(op)
            case "stablehlo.constant":
                self._constant(op)
            case "stablehlo.partition_id":
                self._device = self._device or self._new(op.results[0], "device", 0)
                self._hold(op.results[0], self._device)
            case name if name in COLLECTIVES:
                self._collective(op)
            case _:
                raise PassFailure("cannot be an instruction of a package", where(op))

    # Storages

    def _new(self, value: ir.Value, space: str = "arena", index: int = 0) -> Storage:
        size = num_elements(value.type) * itemsize(dtype_name(value.type))
        storage = Storage(len(self.storages), size, space, index, self._clock, self._clock)
        self.storages.append(storage)
        self._hold(value, storage)
        return storage

    def _hold(self, value: ir.Value, storage: Storage) -> None:
        storage.values.add(value)
        self._of[value] = storage

    def _define(self, value: ir.Value) -> Storage:
        """Return the storage that the operation at hand writes its result to."""
        storage = self._take_preferred(value)
        if storage is None:
            return self._new(value)
        storage.values.clear()
        self._hold(value, storage)
        self._touch(storage, self._clock)
        return storage

    def _take_preferred(self, value: ir.Value) -> Storage | None:
        """Return the storage in which ``value`` is wanted, if all in it is dead before its op.

        Values of an outer block in it are results that are not made yet.
        """
        storage = self._preferred.pop(value, None)
        if storage is None:
            return None
        op = value.owner.operation
        here = self._uses.index(op)
        dead = all(
            block_of(held) != op.block or self._uses.last(held) < here for held in storage.values
        )
        return storage if dead else None

    def _touch(self, storage: Storage, now: int) -> None:
        storage.last = max(storage.last, now)
        for start, outer in self._loops:
            if storage.first < start:
                outer.add(storage)

    def _read(self, value: ir.Value) -> Storage:
        """Return the storage of an operand, alive at this instruction."""
        if value in self._splats:
            storage = self._new(value)
            self.code.append(Fill(storage.number, self._splats[value]))
            del self._of[value]
            storage.values.clear()
            return storage
        storage = self._of[value]
        self._touch(storage, self._clock)
        return storage

    def _read_all(self, values: Sequence[ir.Value]) -> tuple[int, ...]:
        return tuple(self._read(value).number for value in values)

    def _is_dead(self, storage: Storage, op: ir.Operation) -> bool:
        """Whether ``op`` is the last to need what the storage holds, so it may be overwritten."""
        if storage.pinned or storage.space not in ("arena", "argument"):
            return False
        here = self._uses.index(op)
        return all(
            block_of(value) == op.block and self._uses.last(value) <= here
            for value in storage.values
        )

    def _write(self, value: ir.Value, target: Storage) -> None:
        """Emit what makes ``target`` hold ``value``: a fill, a copy, or nothing."""
        self._touch(target, self._clock)
        if value in self._splats:
            self.code.append(Fill(target.number, self._splats[value]))
            return
        source = self._read(value)
        if source is not target and target.size:
            self.code.append(Copy(source.number, target.number))

    # Operations

    def _constant(self, op: ir.Operation) -> None:
        value = op.results[0]
        splat = splat_value(op)
        array = constant_value(op)
        if splat is not None and array.nbytes > FILL_BYTES:
            self._splats[value] = np.asarray(splat).tobytes()
            return
        key = (str(value.type), hashlib.sha256(array.tobytes()).digest())
        if key not in self._constant_of:
            number = len(self.constants)
            self._constant_of[key] = self._new(value, "constant", number)
            name, shape = f"constant.{number}", shape_of(value.type)
            self.constants.append(Constant(name, dtype_name(value.type), shape, array))
        self._hold(value, self._constant_of[key])

    def _call(self, op: ir.Operation) -> None:
        name = ir.FlatSymbolRefAttr(op.attributes["callee"]).value
        function = self._kernels[name]
        if "pai.kernel" not in function.attributes:
            raise PassFailure(f"@{name} is no kernel", where(op), "run pai-fuse first")
        kind = ir.StringAttr(function.attributes["pai.kernel"]).value
        pairs = _alias(function)
        if kind == "bitcast" and op.operands[0] not in self._splats:
            storage = self._read(op.operands[0])
            self._hold(op.results[0], storage)
            return
        operands = [self._read(value) for value in op.operands]
        shared = {r: o for r, o in pairs.items() if self._may_share(operands, o, op)}
        for result, operand in shared.items():
            self._share(operands[operand], op.results[result])
        results = [
            self._of[value] if number in shared else self._define(value)
            for number, value in enumerate(op.results)
        ]
        for result, operand in pairs.items():
            if result not in shared:
                self.code.append(Copy(operands[operand].number, results[result].number))
        if kind != "bitcast":
            buffers = tuple(storage.number for storage in (*operands, *results))
            self.code.append(Call(name, buffers))

    def _collective(self, op: ir.Operation) -> None:
        operands = [self._read(value) for value in op.operands]
        results = []
        for number, value in enumerate(op.results):
            # A reduction reads a block of every operand before it writes that block.
            if op.name == "stablehlo.all_reduce" and self._may_share(operands, number, op):
                self._share(operands[number], value)
                results.append(operands[number])
            else:
                results.append(self._define(value))
        sources, targets = (tuple(s.number for s in some) for some in (operands, results))
        self.code.append(collective(op, sources, targets))

    def _share(self, storage: Storage, value: ir.Value) -> None:
        """Let ``value`` take the place of what the storage holds."""
        storage.values.clear()
        self._hold(value, storage)
        self._preferred.pop(value, None)

    def _may_share(self, operands: list[Storage], operand: int, op: ir.Operation) -> bool:
        storage = operands[operand]
        return operands.count(storage) == 1 and self._is_dead(storage, op)

    def _case(self, op: ir.Operation) -> None:
        index = self._read(op.operands[0])
        targets = [self._define(value) for value in op.results]
        branches: list[tuple[Instruction, ...]] = []
        for region in op.regions:
            block = region.blocks[0]
            returned = list(block.operations)[-1].operands
            with self._nested() as code:
                for value, target in zip(returned, targets, strict=True):
                    if not isinstance(value.owner, ir.Block) and block_of(value) == block:
                        self._preferred.setdefault(value, target)
                for value, target in zip(self._block(block), targets, strict=True):
                    self._write(value, target)
            branches.append(tuple(code))
        if op.name == "stablehlo.if":  # the first region is for true
            branches.reverse()
        for value, target in zip(op.results, targets, strict=True):
            target.values = {value}
            self._touch(target, self._clock)
        self.code.append(Case(index.number, tuple(branches)))

    def _while(self, op: ir.Operation) -> None:
        carries = self._carries(op)
        condition, body = (region.blocks[0] for region in op.regions)
        self._clock += 1
        self._loops.append((self._clock, set(carries)))
        with self._nested() as condition_code:
            self._rename(carries, condition.arguments)
            for storage in carries:
                storage.pinned = True
            (predicate,) = self._read_all(self._block(condition))
            for storage in carries:
                storage.pinned = False
        with self._nested() as body_code:
            self._rename(carries, body.arguments)
            self._body(body, carries)
        _, outer = self._loops.pop()
        for storage in outer:
            self._touch(storage, self._clock)
        self._rename(carries, op.results)
        self.code.append(While(predicate, tuple(condition_code), tuple(body_code)))

    def _rename(self, carries: list[Storage], values: Sequence[ir.Value]) -> None:
        for storage, value in zip(carries, values, strict=True):
            storage.values.clear()
            self._hold(value, storage)

    def _carries(self, op: ir.Operation) -> list[Storage]:
        """Return the storages of the carried values, holding the initial ones.

        An initial value that nothing else needs gives its storage away; others are copied.
        """
        values = list(op.operands)
        carries: list[Storage] = []
        for value, result in zip(values, op.results, strict=True):
            own = self._of.get(value)
            preferred = self._take_preferred(result)
            if preferred is None and own is not None and self._gives_away(own, values, op):
                self._touch(own, self._clock)
                carries.append(own)
                continue
            target = preferred or self._new(result)
            self._write(value, target)
            carries.append(target)
        return carries

    def _gives_away(self, storage: Storage, values: list[ir.Value], op: ir.Operation) -> bool:
        once = sum(self._of.get(value) is storage for value in values) == 1
        captured = any(self._uses.captured(value, op) for value in storage.values)
        return once and not captured and self._is_dead(storage, op)

    def _body(self, body: ir.Block, carries: list[Storage]) -> None:
        self._uses.enter(body)
        returned = list(list(body.operations)[-1].operands)
        for value, argument, storage in zip(returned, body.arguments, carries, strict=True):
            owner = value.owner
            made_here = not isinstance(owner, ir.Block) and owner.operation.block == body
            if made_here and self._uses.last(argument) < self._uses.index(owner.operation):
                self._preferred.setdefault(value, storage)
        self._block(body)
        self._assign(returned, carries)

    def _assign(self, values: list[ir.Value], targets: list[Storage]) -> None:
        """Write all values to their targets as if at once."""
        pending = [
            (value, target)
            for value, target in zip(values, targets, strict=True)
            if self._of.get(value) is not target
        ]
        saved: dict[Storage, Storage] = {}

        def source(value: ir.Value) -> Storage | None:
            held = self._of.get(value)
            return saved.get(held, held) if held is not None else None

        while pending:
            sources = [source(value) for value, _ in pending]
            free = next((p for p in pending if p[1] not in sources), None)
            if free is None:  # only cycles are left: save one target, which frees it
                target = pending[0][1]
                copy = Storage(
                    len(self.storages), target.size, "arena", 0, self._clock, self._clock
                )
                self.storages.append(copy)
                self.code.append(Copy(target.number, copy.number))
                saved[target] = copy
                continue
            pending.remove(free)
            value, target = free
            held = source(value)
            if held is None:
                self._write(value, target)
                continue
            self._touch(held, self._clock)
            self._touch(target, self._clock)
            self.code.append(Copy(held.number, target.number))


def _alias(function: ir.OpView) -> dict[int, int]:
    """Return result number -> operand number of ``pai.alias``."""
    if "pai.alias" not in function.attributes:
        return {}
    pairs = list(ir.DenseI64ArrayAttr(function.attributes["pai.alias"]))
    return dict(zip(pairs[::2], pairs[1::2], strict=True))
