"""A planned kernel as MLIR text: entry point, row loop, stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.convert import store
from pai.compiler.codegen.cpu.emit.emitter import Buffer, Emitter, Indices
from pai.compiler.codegen.cpu.emit.graph import Graph, Value
from pai.compiler.codegen.cpu.emit.plan import Grid, Plan, Stage, last_cuts, turned_dimension
from pai.compiler.codegen.cpu.emit.stage import STAGES
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar

_ALIGN = 64
_TILE = 32  # elements along either side of the tiles of a transposition


@dataclass(frozen=True)
class KernelSource:
    """One kernel as text.

    Args:
        text: an MLIR module for ``toolchain.compile_text``.
        symbol: the entry point.
        grid: number of independent parts.
        scratch_bytes: private memory each thread needs.
    """

    text: str
    symbol: str
    grid: int
    scratch_bytes: int


class StageContext(Emitter):
    """The emitter of one kernel, with its memory and the position of the current row."""

    def __init__(self, b: Builder, graph: Graph) -> None:
        super().__init__(b)
        self.graph = graph
        self.rows: Indices = ()
        self.range: tuple[Index, Index] | None = None
        self.whole = False  # all ends of ``range`` are multiples of a tile
        self.scratch_bytes = 0

    def scratch(self, kind: ElemType, shape: Sequence[int]) -> Buffer:
        """Reserve scratch memory."""
        offset = self.scratch_bytes
        self.scratch_bytes += -(-max(1, prod(shape)) * kind.bytes // _ALIGN) * _ALIGN
        pointer = self.b.address("%scratch", offset, "i8")
        return Buffer(pointer, kind, tuple(shape))

    def put(self, buffer: Buffer, index: Indices, x: Scalar) -> None:
        """Store an element; ``index`` is of the whole value."""
        store(
            self.b,
            Scalar(buffer.type, x.re, x.im),
            buffer.pointer,
            self.b.linear(index[buffer.skip :], buffer.shape),
        )

    def write(self, value: Value, index: Indices, x: Scalar) -> None:
        """Store an element of a value that goes through memory."""
        self.put(self.buffers[value], index, x)

    def copy(self, value: Value, target: Buffer) -> None:
        """Store all elements of a value into ``target``."""
        self.free_loops(
            value.shape, lambda index: self.put(target, index, self.element(value, index))
        )

    def free_loops(
        self,
        shape: Sequence[int],
        body: Callable[[Indices], None],
        last: bool = True,
        cuts: Sequence[int] = (),
    ) -> None:
        """Loop over what the row loop leaves of ``shape``, the last dimension by its range.

        The loop over the last dimension is written once for each stretch between ``cuts``.
        """
        b = self.b

        def nest(done: Indices) -> Sequence[str]:
            if len(done) == len(shape):
                with self.layer():
                    body(done)
                return ()
            low: Index = 0
            high: Index = shape[len(done)]
            if last and self.range and len(done) == len(shape) - 1:
                low, high = self.range
            elif cuts and len(done) == len(shape) - 1:
                for start, end in pairwise([0, *cuts, shape[-1]]):
                    b.loop(start, end, lambda iv: nest((*done, iv)))
                return ()
            b.loop(low, high, lambda iv: nest((*done, iv)))
            return ()

        nest(self.rows[: len(shape)])

    def _whole_tiles(self, stop: Index) -> bool:
        """Return whether the loop up to ``stop`` consists of whole tiles."""
        if isinstance(stop, int):
            return stop % _TILE == 0
        return self.whole and self.range is not None and stop == self.range[1]

    def tiled_loops(
        self, shape: Sequence[int], turned: int, body: Callable[[Indices], None]
    ) -> None:
        """Loop in tiles over dimension ``turned`` and the last one, innermost.

        Reads that are contiguous along ``turned`` then stay in the nearest cache.
        """
        b = self.b
        last = len(shape) - 1
        outer = [1 if d in (turned, last) else n for d, n in enumerate(shape)]
        low, high = self.range or (0, shape[last])

        def tile(start: Index, stop: Index, each: Callable[[Index], None]) -> None:
            end: Index = b.add(start, _TILE)
            if not self._whole_tiles(stop):
                end = b.bin("minsi", b.index(end), b.index(stop), "i64")

            def run(iv: Index) -> Sequence[str]:
                each(iv)
                return ()

            b.loop(start, end, run)

        def tiles(index: Indices) -> None:
            def point(i: Index, j: Index) -> None:
                with self.layer():
                    body((*index[:turned], i, *index[turned + 1 : last], j))

            def pair(i: Index, j: Index) -> Sequence[str]:
                tile(i, shape[turned], lambda p: tile(j, high, lambda q: point(p, q)))
                return ()

            b.loop(
                0,
                shape[turned],
                lambda i: list(b.loop(low, high, lambda j: pair(i, j), step=_TILE)),
                step=_TILE,
            )

        with b.plain_indices():
            self.free_loops(outer, tiles, last=False)


def emit_plan(
    graph: Graph, plan: Plan, grid: Grid, symbol: str, features: frozenset[str]
) -> KernelSource:
    """Write a planned kernel."""
    b = Builder(features)
    b.global_prefix = symbol
    e = StageContext(b, graph)
    count = len(graph.arguments)
    for i, value in enumerate(graph.arguments):
        e.buffers[value] = Buffer(f"%p{i}", value.type, value.shape)
    first_result: dict[Value, int] = {}
    for i, value in enumerate(graph.results):
        first_result.setdefault(value, i)
    for i, value in enumerate(graph.results):
        if value.node is not None and first_result[value] == i:
            e.buffers[value] = Buffer(f"%p{count + i}", value.type, value.shape)
    for stage in plan.stages:
        for value in stage.values:
            if value not in e.buffers:
                kept = e.scratch(value.type, value.shape[grid.rows :])
                e.buffers[value] = Buffer(kept.pointer, kept.type, kept.shape, grid.rows)
    grid = _protect(e, graph, plan, grid)
    _body(e, plan, grid)
    _copies(e, graph, first_result)
    return assemble(e, graph, symbol, grid.parts)


def _protect(e: StageContext, graph: Graph, plan: Plan, grid: Grid) -> Grid:
    """Copy operands that are overwritten in place but read by more than their own update."""
    for number, operand in list(graph.alias.items()):
        argument, value = graph.arguments[operand], graph.results[number]
        node = value.node
        reads = sum(n.operands.count(argument) for n in argument.uses) + argument.captured
        in_place = node is not None and any(s.node is node for s in plan.stages)
        if in_place and node.operands[value.number] is argument and reads == 1:  # type: ignore[union-attr]
            continue
        del graph.alias[number]
        kept = e.scratch(argument.type, argument.shape)
        e.copy(argument, kept)
        e.buffers[argument] = kept
        count = prod(plan.stages[0].shape[: grid.rows]) if plan.stages and grid.rows else 2**40
        grid = Grid(1, grid.rows, count, grid.last)
    return grid


def _body(e: StageContext, plan: Plan, grid: Grid) -> None:
    b = e.b

    def stages() -> None:
        for stage in plan.stages:
            with e.layer():
                _stage(e, stage)

    if not plan.stages:
        return
    shape = plan.stages[0].shape
    if not grid.rows and not grid.last:
        stages()
        return
    count = shape[-1] if grid.last else prod(shape[: grid.rows])
    low = b.mul("%begin", grid.per_part)
    high = b.bin("minsi", b.index(b.mul("%end", grid.per_part)), b.index(count), "i64")
    if grid.last:
        e.range = (low, high)
        e.whole = count % _TILE == 0 and grid.per_part % _TILE == 0
        stages()
        return

    def row(position: Index) -> Sequence[str]:
        e.rows = b.delinear(position, shape[: grid.rows])
        with e.layer():
            stages()
        return ()

    b.loop(low, high, row)


def _stage(e: StageContext, stage: Stage) -> None:
    if stage.node is not None:
        STAGES[stage.node.name].emit(e, stage.node)
        return

    def point(index: Indices) -> None:
        elements = [(v, _computed(e, v, index)) for v in stage.values]
        for value, x in elements:
            e.write(value, index, x)

    stored = set(e.buffers)
    turned = turned_dimension(stage.values, stored)
    if turned is not None and turned >= len(e.rows):
        e.tiled_loops(stage.shape, turned, point)
    else:
        e.free_loops(stage.shape, point, cuts=last_cuts(stage.values, stored))


def _computed(e: StageContext, value: Value, index: Indices) -> Scalar:
    """Return an element of a stored value by its rule, not from its memory."""
    buffer = e.buffers.pop(value)
    try:
        return e.element(value, index)
    finally:
        e.buffers[value] = buffer


def _copies(e: StageContext, graph: Graph, first: dict[Value, int]) -> None:
    """Fill the results that are arguments or repeat another result, in the first part."""
    b = e.b
    todo = [(i, v) for i, v in enumerate(graph.results) if v.node is None or first[v] != i]
    if not todo:
        return

    def copy() -> Sequence[str]:
        for i, value in todo:
            e.rows, e.range = (), None
            e.copy(value, Buffer(f"%p{len(graph.arguments) + i}", value.type, value.shape))
        return ()

    b.cond(b.icmp("eq", "%begin", 0), copy)


def assemble(e: StageContext, graph: Graph, symbol: str, parts: int) -> KernelSource:
    """Return the finished kernel, whose body is in ``e.b``, for a grid of ``parts``."""
    b = e.b
    values = [*graph.arguments, *graph.results]
    shared = {i for r, o in graph.alias.items() for i in (o, len(graph.arguments) + r)}
    names = [f"%p{i}" for i in range(len(values))]
    arguments = ", ".join(
        f"{n}: !llvm.ptr{'' if i in shared else ' {llvm.noalias}'}" for i, n in enumerate(names)
    )
    scalars = "%begin: i64, %end: i64, %scratch: !llvm.ptr {llvm.noalias}"
    lines = ["module {", *b.globals]
    lines += [f"func.func private @{name}{sig}" for name, sig in b.externals.items()]
    lines.append(f"func.func @{symbol}_body({arguments}{', ' if names else ''}{scalars}) {{")
    lines += [*b.head(), *b.lines, "return", "}"]
    lines.append(
        f"func.func @{symbol}(%buffers: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr) {{"
    )
    for i, name in enumerate(names):
        lines.append(
            f"%a{i} = llvm.getelementptr %buffers[{i}] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr"
        )
        lines.append(f"{name} = llvm.load %a{i} : !llvm.ptr -> !llvm.ptr")
    pointers = ", ".join([*names, "%begin", "%end", "%scratch"])
    types = ", ".join([*["!llvm.ptr"] * len(names), "i64", "i64", "!llvm.ptr"])
    lines += [f"call @{symbol}_body({pointers}) : ({types}) -> ()", "return", "}", "}"]
    return KernelSource("\n".join(lines) + "\n", symbol, parts, e.scratch_bytes)
