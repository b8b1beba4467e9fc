"""Memory that a local module takes besides its arguments, as a package would lay it out.

The kernels are those that ``passes/fuse`` would make and the lifetimes those of
``passes/schedule``: what is updated in place, what a loop carries, what lives until a loop ends.
Nothing is rewritten, so a candidate of the search is weighed in a quarter of the time that fusing
and scheduling it takes. ``python -m benchmarks.plan_truth`` holds it to packages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pai.dialects.constants import splat_value
from pai.dialects.mlir import ir
from pai.passes.fuse import ops
from pai.passes.rewrite import constant_operand
from pai.passes.schedule.arena import assign_offsets, peak_bytes
from pai.passes.schedule.walk import FILL_BYTES
from pai.passes.strategy.live_steps import Step, steps_of


@dataclass(frozen=True)
class Live:
    """What a run holds on one device besides the arguments.

    Args:
        temporary_bytes: most bytes of temporaries at once, 64-byte aligned.
        fragmentation_bytes: what the arena holds beyond them.
        constant_bytes: constants that no kernel holds.
        in_place: per result, whether it lies in the memory of an argument.
    """

    temporary_bytes: int
    fragmentation_bytes: int
    constant_bytes: int
    in_place: tuple[bool, ...]


def live_bytes(block: ir.Block, donated: Collection[int] = ()) -> Live:
    """Return what the block of ``@main`` needs.

    Args:
        block: StableHLO on local shapes; not changed.
        donated: numbers of the arguments that may be overwritten once they are dead.
    """
    walk = _Walk()
    for number, value in enumerate(block.arguments):
        storage = walk.new(value, "argument")
        storage.pinned = number not in donated
    results = [walk.read(value) for value in walk.block(block)]
    in_place = tuple(storage.space == "argument" for storage in results)
    for storage in results:
        if storage.space == "arena":
            storage.space = "result"
    lifetimes = [(s.first, s.last, s.size) for s in walk.storages if s.space == "arena"]
    constants = sum(s.size for s in walk.storages if s.space == "constant")
    peak, (_, arena) = peak_bytes(lifetimes), assign_offsets(lifetimes)
    return Live(peak, arena - peak, constants, in_place)


@dataclass(eq=False)
class _Storage:
    """Memory of one or more values, alive from step ``first`` to step ``last``."""

    size: int
    space: str
    first: int
    last: int
    values: set[ir.Value] = field(default_factory=set)
    pinned: bool = False


class _Walk:
    """Gives every value a storage, as ``passes/schedule/walk.py`` does, and emits nothing."""

    def __init__(self) -> None:
        self.storages: list[_Storage] = []
        self.of: dict[ir.Value, _Storage] = {}
        self.splats: set[ir.Value] = set()
        self.constants: dict[ir.Attribute, _Storage] = {}
        self.preferred: dict[ir.Value, _Storage] = {}
        self.home: dict[ir.Value, int] = {}
        self.made: dict[ir.Value, int] = {}  # step of its block that makes a value
        self.last: dict[ir.Value, int] = {}  # last step of its block that uses it
        self.blocks: list[int] = []
        self.count = self.clock = self.here = 0
        self.loops: list[tuple[int, set[_Storage]]] = []

    def block(self, block: ir.Block, carries: Sequence[_Storage] = ()) -> list[ir.Value]:
        """Walk a block; return the operands of its terminator.

        Args:
            block: of ``@main`` or of control flow.
            carries: for a loop's body, where the next values are wanted.
        """
        steps, returned = steps_of(block)
        self.enter(block, steps, returned)
        for value, argument, storage in zip(returned, block.arguments, carries, strict=False):
            here = self.home.get(value) == self.count and value in self.made
            if here and self.last.get(argument, -1) < self.made[value]:
                self.preferred.setdefault(value, storage)
        outer = self.here
        for self.here, step in enumerate(steps):
            self.clock += 1
            self.step(step)
        self.clock += 1
        self.here = outer
        self.blocks.pop()
        return returned

    def enter(self, block: ir.Block, steps: Sequence[Step], returned: list[ir.Value]) -> None:
        self.count += 1
        self.blocks.append(self.count)
        for value in block.arguments:
            self.home[value] = self.count
        for number, step in enumerate(steps):
            for value in step.results:
                self.home[value], self.made[value] = self.count, number
            for value in (*step.reads, *step.captured):
                if self.home.get(value) == self.count:
                    self.last[value] = number
        for value in returned:
            if self.home.get(value) == self.count:
                self.last[value] = len(steps)

    def step(self, step: Step) -> None:
        if step.kind == "while":
            self.loop(step)
        elif step.kind == "case":
            self.case(step)
        elif step.kind == "bitcast" and step.reads[0] not in self.splats:
            self.hold(step.results[0], self.read(step.reads[0]))
        else:
            self.kernel(step)

    def kernel(self, step: Step) -> None:
        operands = [self.read(value) for value in step.reads]
        shared = {}
        for result, operand in step.in_place.items():
            storage = operands[operand]
            if operands.count(storage) == 1 and self.is_dead(storage):
                storage.values.clear()
                self.hold(step.results[result], storage)
                self.preferred.pop(step.results[result], None)
                shared[result] = storage
        for number, value in enumerate(step.results):
            if number not in shared:
                self.define(value)

    # Storages

    def new(self, value: ir.Value, space: str = "arena") -> _Storage:
        storage = _Storage(ops.bytes_of(value.type), space, self.clock, self.clock)
        self.storages.append(storage)
        self.hold(value, storage)
        return storage

    def hold(self, value: ir.Value, storage: _Storage) -> None:
        storage.values.add(value)
        self.of[value] = storage

    def define(self, value: ir.Value) -> _Storage:
        storage = self.take_preferred(value)
        if storage is None:
            return self.new(value)
        storage.values.clear()
        self.hold(value, storage)
        self.touch(storage)
        return storage

    def take_preferred(self, value: ir.Value) -> _Storage | None:
        storage = self.preferred.pop(value, None)
        if storage is None:
            return None
        here = self.blocks[-1]
        dead = all(
            self.home[held] != here or self.last.get(held, -1) < self.here
            for held in storage.values
        )
        return storage if dead else None

    def touch(self, storage: _Storage) -> None:
        storage.last = max(storage.last, self.clock)
        for start, outer in self.loops:
            if storage.first < start:
                outer.add(storage)

    def read(self, value: ir.Value) -> _Storage:
        """Return the storage of an operand, alive now; a large splat is made when it is read."""
        if value not in self.of and value not in self.splats:
            self.constant(value)
        if value in self.splats:
            storage = self.new(value)
            del self.of[value]
            storage.values.clear()
            return storage
        self.touch(self.of[value])
        return self.of[value]

    def constant(self, value: ir.Value) -> None:
        op = constant_operand(value)
        if op is None:  # the device number
            self.new(value, "device")
        elif splat_value(op) is not None and ops.bytes_of(value.type) > FILL_BYTES:
            self.splats.add(value)
        else:
            key = op.attributes["value"]
            if key not in self.constants:
                self.constants[key] = self.new(value, "constant")
            self.hold(value, self.constants[key])

    def is_dead(self, storage: _Storage) -> bool:
        if storage.pinned or storage.space not in ("arena", "argument"):
            return False
        return all(
            self.home.get(value) == self.blocks[-1] and self.last.get(value, -1) <= self.here
            for value in storage.values
        )

    def write(self, value: ir.Value, target: _Storage) -> None:
        self.touch(target)
        if value not in self.splats:
            self.read(value)

    # Control flow

    def case(self, step: Step) -> None:
        self.read(step.reads[0])
        targets = [self.define(value) for value in step.results]
        for region in step.regions:
            block = region.blocks[0]
            for value, target in zip(_returned(block), targets, strict=True):
                owner = value.owner
                if not isinstance(owner, ir.Block) and owner.operation.block == block:
                    self.preferred.setdefault(value, target)
            for value, target in zip(self.block(block), targets, strict=True):
                self.write(value, target)
        for value, target in zip(step.results, targets, strict=True):
            target.values = {value}
            self.touch(target)

    def loop(self, step: Step) -> None:
        carries = self.carries(step)
        condition, body = (region.blocks[0] for region in step.regions)
        self.clock += 1
        self.loops.append((self.clock, set(carries)))
        self.rename(carries, list(condition.arguments))
        for storage in carries:
            storage.pinned = True
        for value in self.block(condition):
            self.read(value)
        for storage in carries:
            storage.pinned = False
        self.rename(carries, list(body.arguments))
        self.assign(self.block(body, carries), carries)
        _, outer = self.loops.pop()
        for storage in outer:
            self.touch(storage)
        self.rename(carries, step.results)

    def assign(self, values: list[ir.Value], targets: list[_Storage]) -> None:
        """Write all values to their targets as if at once; one of a cycle is kept aside."""
        pairs = zip(values, targets, strict=True)
        pending = [(value, target) for value, target in pairs if self.of.get(value) is not target]
        saved: set[_Storage] = set()
        while pending:
            sources = [self.of.get(value) for value, _ in pending]
            awaited = [s for s in sources if s is not None and s not in saved]
            free = next((pair for pair in pending if pair[1] not in awaited), None)
            if free is None:
                target = pending[0][1]
                self.storages.append(_Storage(target.size, "arena", self.clock, self.clock))
                saved.add(target)
                continue
            pending.remove(free)
            self.write(*free)

    def rename(self, carries: list[_Storage], values: Sequence[ir.Value]) -> None:
        for storage, value in zip(carries, values, strict=True):
            storage.values.clear()
            self.hold(value, storage)

    def carries(self, step: Step) -> list[_Storage]:
        """Return the storages of the carried values: the initial ones' own, or copies."""
        out = []
        for value, result in zip(step.reads, step.results, strict=True):
            own, preferred = self.of.get(value), self.take_preferred(result)
            if preferred is None and own is not None and self.gives_away(own, step):
                self.touch(own)
                out.append(own)
                continue
            target = preferred or self.new(result)
            self.write(value, target)
            out.append(target)
        return out

    def gives_away(self, storage: _Storage, step: Step) -> bool:
        once = sum(self.of.get(value) is storage for value in step.reads) == 1
        captured = any(value in step.captured for value in storage.values)
        return once and not captured and self.is_dead(storage)


def _returned(block: ir.Block) -> list[ir.Value]:
    return list(list(block.operations)[-1].operands)
