"""sort and top_k: a stable bottom-up merge sort in scratch memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pai.compiler.codegen.cpu.emit.builder import Index
from pai.compiler.codegen.cpu.emit.convert import load, store
from pai.compiler.codegen.cpu.emit.elementwise import total_order
from pai.compiler.codegen.cpu.emit.emitter import Buffer, Indices
from pai.compiler.codegen.cpu.emit.graph import Node
from pai.compiler.codegen.cpu.emit.kernel import StageContext
from pai.compiler.codegen.cpu.emit.stage import stage_rule
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar

Before = Callable[[list[Scalar], list[Scalar]], str]
_PTR = "!llvm.ptr"


@stage_rule("sort", rows=lambda node: node.int("dimension"))
def sort(e: StageContext, node: Node) -> None:
    """Sort every line along one dimension by the comparator region."""
    d = node.int("dimension")
    shape = node.operands[0].shape
    n = shape[d]
    buffers = [(e.scratch(v.type, (n,)), e.scratch(v.type, (n,))) for v in node.operands]

    def before(x: list[Scalar], y: list[Scalar]) -> str:
        pairs = [s for pair in zip(x, y, strict=True) for s in pair]
        return e.apply(node.regions[0], pairs)[0].re

    def line(index: Indices) -> None:
        def full(i: Index) -> Indices:
            return (*index[:d], i, *index[d + 1 :])

        def read(iv: Index) -> Sequence[str]:
            with e.layer():
                for value, (first, _) in zip(node.operands, buffers, strict=True):
                    e.put(first, (iv,), e.element(value, full(iv)))
            return ()

        e.b.loop(0, n, read)
        sorted_in = merge_sort(e, buffers, n, before)

        def write(iv: Index) -> Sequence[str]:
            for value, pointer in zip(node.results, sorted_in, strict=True):
                e.write(value, full(iv), load(e.b, pointer, iv, value.type))
            return ()

        e.b.loop(0, n, write)

    lines = (*shape[:d], 1, *shape[d + 1 :])
    e.free_loops(lines, line)


@stage_rule("chlo.top_k", rows=lambda node: len(node.results[0].shape) - 1)
def top_k(e: StageContext, node: Node) -> None:
    """The k greatest of each line by total order, with their places; equal ones in order."""
    (x,) = node.operands
    values, places = node.results
    n, k = x.shape[-1], values.shape[-1]
    buffers = [(e.scratch(v.type, (n,)), e.scratch(v.type, (n,))) for v in (x, places)]
    b = e.b

    def before(p: list[Scalar], q: list[Scalar]) -> str:
        names, kind = [p[0].re, q[0].re], x.type.reg
        if x.type.is_float:
            names = [total_order(b, name, kind) for name in names]
            kind = f"i{kind[1:]}"
        return b.cmp("sgt" if x.type.signed else "ugt", names[0], names[1], kind)

    def line(index: Indices) -> None:
        def read(iv: Index) -> Sequence[str]:
            with e.layer():
                e.put(buffers[0][0], (iv,), e.element(x, (*index[:-1], iv)))
                place = Scalar(places.type, b.cast("trunci", b.index(iv), "i64", places.type.reg))
                e.put(buffers[1][0], (iv,), place)
            return ()

        b.loop(0, n, read)
        sorted_in = merge_sort(e, buffers, n, before)

        def write(iv: Index) -> Sequence[str]:
            for value, pointer in zip((values, places), sorted_in, strict=True):
                e.write(value, (*index[:-1], iv), load(b, pointer, iv, value.type))
            return ()

        b.loop(0, k, write)

    e.free_loops((*x.shape[:-1], 1), line)


def merge_sort(
    e: StageContext, buffers: Sequence[tuple[Buffer, Buffer]], n: int, before: Before
) -> list[str]:
    """Sort what the first buffers hold; return the pointers of the sorted arrays.

    Each pass merges runs of ``width`` from one set of buffers into the other.
    """
    b = e.b
    passes = max(0, n - 1).bit_length()
    kinds = [first.type for first, _ in buffers]
    count = len(kinds)

    def one_pass(number: Index, *pointers: str) -> Sequence[str]:
        source, target = pointers[:count], pointers[count:]
        width = b.bin("shli", b.const(1, "i64"), b.index(number), "i64")

        def run(low: Index) -> Sequence[str]:
            middle = b.bin("minsi", b.index(b.add(low, width)), b.index(n), "i64")
            high = b.bin("minsi", b.index(b.add(middle, width)), b.index(n), "i64")
            _merge(e, kinds, source, target, (low, middle, high), before)
            return ()

        b.loop(0, n, run, step=b.mul(width, 2))
        return [*target, *source]

    inits = [first.pointer for first, _ in buffers] + [second.pointer for _, second in buffers]
    results = b.loop(0, passes, one_pass, inits, [_PTR] * (2 * count))
    return results[:count]


def _merge(
    e: StageContext,
    kinds: Sequence[ElemType],
    source: Sequence[str],
    target: Sequence[str],
    bounds: tuple[Index, str, str],
    before: Before,
) -> None:
    """Merge source[low:middle] and source[middle:high] into target[low:high], stably."""
    b = e.b
    low, middle, high = bounds

    def read(at: str) -> list[Scalar]:
        return [load(b, p, at, k) for p, k in zip(source, kinds, strict=True)]

    def step(k: Index, i: str, j: str) -> Sequence[str]:
        left_over = b.cmp("sge", j, high, "i64")
        right_over = b.cmp("sge", i, middle, "i64")

        def compare() -> Sequence[str]:
            with e.layer():
                return [before(read(j), read(i))]

        neither = b.bin(
            "xori", b.bin("ori", left_over, right_over, "i1"), b.const(True, "i1"), "i1"
        )
        (right,) = b.cond(neither, compare, lambda: [right_over], ["i1"])
        taken = b.select(right, j, i, "i64")
        for x, pointer in zip(read(taken), target, strict=True):
            store(b, x, pointer, k)
        one = b.cast("extui", right, "i1", "i64")
        other = b.bin("subi", b.const(1, "i64"), one, "i64")
        return [b.bin("addi", i, other, "i64"), b.bin("addi", j, one, "i64")]

    b.loop(low, high, step, [b.index(low), middle], ["i64", "i64"])
