"""cholesky and triangular_solve: textbook loops, one matrix a row of the kernel."""

from __future__ import annotations

from collections.abc import Sequence

from pai.compiler.codegen.cpu.emit import complexmath
from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.convert import constant, convert, load
from pai.compiler.codegen.cpu.emit.emitter import Buffer, Emitter, Indices
from pai.compiler.codegen.cpu.emit.graph import Node
from pai.compiler.codegen.cpu.emit.kernel import StageContext
from pai.compiler.codegen.cpu.emit.stage import stage_rule
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar, elem_type


def _work_type(kind: ElemType) -> ElemType:
    """Return the type sums are kept in: double precision."""
    return elem_type("complex<f64>" if kind.is_complex else "f64")


def _conj(b: Builder, x: Scalar) -> Scalar:
    return Scalar(x.type, x.re, complexmath.neg(b, x.im, x.type.reg)) if x.im else x


def _times(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    if x.im:
        return Scalar(x.type, *complexmath.multiply(b, (x.re, x.im), (y.re, y.im), "f64"))
    return Scalar(x.type, b.bin("mulf", x.re, y.re, "f64"))


def _minus(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    return Scalar(
        x.type, *(b.bin("subf", p, q, "f64") for p, q in zip(x.parts, y.parts, strict=True))
    )


def _over(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    if x.im:
        return Scalar(x.type, *complexmath.divide(b, (x.re, x.im), (y.re, y.im)))
    return Scalar(x.type, b.bin("divf", x.re, y.re, "f64"))


def _less(e: Emitter, start: Scalar, low: Index, high: Index, term: object) -> Scalar:
    """Return start - sum of term(k) for low <= k < high."""
    b = e.b
    types = [start.type.part.reg] * len(start.parts)

    def step(k: Index, *parts: str) -> Sequence[str]:
        with e.layer():
            return _minus(b, Scalar(start.type, *parts), term(k)).parts  # type: ignore[operator]

    return Scalar(start.type, *b.loop(low, high, step, start.parts, types))


def _matrix_rows(node: Node) -> int:
    return len(node.results[0].shape) - 2


def _fetch(e: Emitter, buffer: Buffer, index: Indices) -> Scalar:
    return load(e.b, buffer.pointer, e.b.linear(index, buffer.shape), buffer.type)


@stage_rule("cholesky", rows=_matrix_rows)
def cholesky(e: StageContext, node: Node) -> None:
    """Factor a = L L^H by columns; the upper form is its adjoint. NaN where a is not definite."""
    (a,) = node.operands
    (result,) = node.results
    n = a.shape[-1]
    lower = node.flag("lower")
    kind = _work_type(a.type)
    factor = e.scratch(kind, (n, n))
    b = e.b

    def matrix(batch: Indices) -> None:
        def source(i: Index, j: Index) -> Scalar:
            x = e.element(a, (*batch, i, j) if lower else (*batch, j, i))
            return convert(b, x if lower else _conj(b, x), kind)

        def column(j: Index) -> Sequence[str]:
            def square(k: Index) -> Scalar:
                x = _fetch(e, factor, (j, k))
                return _times(b, x, _conj(b, x))

            with e.layer():
                rest = _less(e, source(j, j), 0, j, square)
            root = b.un("math.sqrt", rest.re, "f64")
            pivot = Scalar(kind, root, *([b.const(0.0, "f64")] if kind.is_complex else []))
            e.put(factor, (j, j), pivot)

            def below(i: Index) -> Sequence[str]:
                def product(k: Index) -> Scalar:
                    return _times(b, _fetch(e, factor, (i, k)), _conj(b, _fetch(e, factor, (j, k))))

                with e.layer():
                    rest = _less(e, source(i, j), 0, j, product)
                    e.put(factor, (i, j), _over(b, rest, pivot))
                return ()

            b.loop(b.add(j, 1), n, below)
            return ()

        b.loop(0, n, column)

        def write(at: Indices) -> Sequence[str]:
            i, j = at if lower else (at[1], at[0])
            inside = b.icmp("sle", j, i)

            def own() -> Scalar:
                x = _fetch(e, factor, (i, j))
                return convert(b, x if lower else _conj(b, x), result.type)

            x = e.choose(result.type, inside, own, lambda: constant(b, result.type, 0))
            e.write(result, (*batch, *at), x)
            return ()

        b.loops((n, n), write)

    e.free_loops(a.shape[:-2], matrix, last=False)


@stage_rule("triangular_solve", rows=_matrix_rows)
def triangular_solve(e: StageContext, node: Node) -> None:
    """Solve op(a) x = b, or x op(a) = b, by substitution."""
    a, right = node.operands
    (result,) = node.results
    left_side, unit = node.flag("left_side"), node.flag("unit_diagonal")
    form = node.text("transpose_a")
    swap = (form in ("TRANSPOSE", "ADJOINT")) == left_side
    # x op(a) = b is op(a)^T x^T = b^T.
    lower = node.flag("lower") != swap
    kind = _work_type(a.type)
    n = a.shape[-1]
    columns = right.shape[-1] if left_side else right.shape[-2]
    work = e.scratch(kind, (n,))
    b = e.b

    def matrix(batch: Indices) -> None:
        def coefficient(i: Index, k: Index) -> Scalar:
            x = e.element(a, (*batch, k, i) if swap else (*batch, i, k))
            return convert(b, _conj(b, x) if form == "ADJOINT" else x, kind)

        def solve(c: Index) -> Sequence[str]:
            def row(step: Index) -> Sequence[str]:
                i = step if lower else b.sub(n - 1, step)
                place = (*batch, i, c) if left_side else (*batch, c, i)
                low, high = (0, i) if lower else (b.add(i, 1), n)

                def term(k: Index) -> Scalar:
                    return _times(b, coefficient(i, k), _fetch(e, work, (k,)))

                with e.layer():
                    rest = _less(e, convert(b, e.element(right, place), kind), low, high, term)
                    x = rest if unit else _over(b, rest, coefficient(i, i))
                    e.put(work, (i,), x)
                    e.write(result, place, convert(b, x, result.type))
                return ()

            b.loop(0, n, row)
            return ()

        b.loop(0, columns, solve)

    e.free_loops(right.shape[:-2], matrix, last=False)
