"""The blocked product that dot and convolution are made of: parts, panels, packing and tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, prod

from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.kernel import KernelSource, StageContext
from pai.compiler.codegen.cpu.epilogue import Kernel, finish
from pai.compiler.codegen.cpu.problem import Blocks, Problem
from pai.compiler.codegen.cpu.target import CpuTarget
from pai.compiler.codegen.cpu.tile import Tile, Vec, make_tile, outer_products

_K_BLOCK = 768  # values of k whose panel (48 columns, f32) takes 144 KiB of L2
_M_BLOCK = 240  # rows of one part: so many reuse a packed panel
_PART_FLOPS = 1e6  # a part of the grid does at least about this much, less for few rows
_FEW_ROWS = 8  # up to so many rows, B is not worth packing


class Product:
    """Writes one product.

    Args:
        kernel: the kernel; its heavy operation's operands are A and B, in this order.
        problem: how the operands are addressed.
        vec: the vector type.
        target: the processor.
        a, b: pointers of A and B; by default those of the heavy operation's operands.
        shifted_a: ``_pack_a`` is overridden and packs row by row.
        shifted_b: ``_pack_b`` is overridden.
        k_unit: blocks of k are multiples of it.
    """

    def __init__(
        self,
        kernel: Kernel,
        problem: Problem,
        vec: Vec,
        target: CpuTarget,
        a: str = "",
        b: str = "",
        *,
        shifted_a: bool = False,
        shifted_b: bool = False,
        k_unit: int = 16,
    ) -> None:
        self.kernel, self.problem, self.vec = kernel, problem, vec
        self.b: Builder = kernel.context.b
        self.e: StageContext = kernel.context
        self.batch, self.m, self.n, self.k = problem.sizes
        self.row_c = problem.row_c or self.n
        self.a_pointer = a or kernel.pointer(kernel.node.operands[0])
        self.b_pointer = b or kernel.pointer(kernel.node.operands[1])
        self.shifted_a, self.k_unit = shifted_a, k_unit
        self.by_vectors = not (shifted_a or shifted_b) and self._by_vectors()
        self.pack_b = shifted_b or not (
            self.by_vectors
            or (problem.n.stride == 1 and problem.k_b.stride is not None and self.m <= _FEW_ROWS)
        )
        self.pack_a = shifted_a or not (self.by_vectors or problem.k_a.stride == 1)
        self.packed_a = self.packed_b = ""
        self.blocks = self._choose_blocks(target)

    def panel_row(self, width: int) -> int:
        """Return the elements of one row of a packed panel."""
        return ceil(width / self.vec.lanes) * self.vec.lanes

    def _by_vectors(self) -> bool:
        """Whether elements are made as products of vectors along k."""
        contiguous = self.problem.k_a.stride == 1 and self.problem.k_b.stride == 1
        return contiguous and self.m <= _FEW_ROWS and self.problem.n.stride != 1

    def _choose_blocks(self, target: CpuTarget) -> Blocks:
        sums, rows, wide = (24, 8, 3) if target.registers == 32 else (12, 6, 2)
        rows = min(rows, self.m)
        if self.by_vectors:
            panel = max(1, sums // rows)
        else:
            wide = max(wide, min(sums // rows, 16) if not self.pack_b else wide)
            panel = min(wide, ceil(self.n / self.vec.lanes)) * self.vec.lanes
        k_blocks = 1 if self.by_vectors else ceil(self.k / (2 * _K_BLOCK))
        k = self.k
        if k_blocks > 1:
            k = min(self.k, ceil(ceil(self.k / k_blocks) / self.k_unit) * self.k_unit)
        part_rows = min(ceil(self.m / rows) * rows, _M_BLOCK)
        flops = 2.0 * part_rows * panel * self.k
        panels = max(1, min(ceil(self.n / panel), round(_PART_FLOPS * min(self.m, 8) / 8 / flops)))
        return Blocks(rows, panel, part_rows, panels, k)

    def emit(self) -> KernelSource:
        """Write the grid's loop and return the kernel."""
        c, b = self.blocks, self.b
        parts = (self.batch, ceil(self.n / (c.panel * c.panels)), ceil(self.m / c.rows))
        if self.pack_b:
            shape = (c.k, self.panel_row(c.panel))
            self.packed_b = self.e.scratch(self.kernel.type, shape).pointer
        if self.pack_a:
            self.packed_a = self.e.scratch(self.kernel.type, (c.rows, c.k)).pointer

        def part(position: Index) -> Sequence[str]:
            batch, column, row = b.delinear(position, parts)
            self._part(batch, b.mul(row, c.rows), b.mul(column, c.panel * c.panels))
            return ()

        b.loop("%begin", "%end", part)
        return finish(self.kernel, prod(parts))

    def _part(self, batch: Index, m: Index, n: Index) -> None:
        b, c = self.b, self.blocks
        a_base = b.address(self.a_pointer, self.problem.batch_a.offset(b, batch), self.vec.elem)
        b_base = b.address(self.b_pointer, self.problem.batch_b.offset(b, batch), self.vec.elem)
        c_start = self._c_start(batch)
        c_base = b.address(self.kernel.output, c_start, self.vec.elem)
        m_end = self._least(b.add(m, c.rows), self.m)
        n_end = self._least(b.add(n, c.panel * c.panels), self.n)

        def k_block(k: Index) -> Sequence[str]:
            count = self._least(c.k, b.sub(self.k, k)) if self.k % c.k else c.k
            if self.pack_a:
                self._pack_a(a_base, m, m_end, k, count)
            self._strips(
                self.n,
                self.blocks.panel,
                n,
                n_end,
                lambda at, width: self._panel(
                    a_base, b_base, c_base, m, m_end, k, count, at, width
                ),
            )
            return ()

        b.loop(0, self.k, k_block, step=c.k)

        def finished(row: Index) -> Sequence[str]:
            line = b.add(c_start, b.mul(row, self.row_c))
            self.kernel.epilogue(b.add(line, n), b.add(line, n_end))
            return ()

        if self.kernel.has_epilogue:
            b.loop(m, m_end, finished)

    def _c_start(self, batch: Index) -> Index:
        if self.problem.batch_c is not None:
            return self.problem.batch_c.offset(self.b, batch)
        return self.b.mul(batch, self.m * self.n)

    def _least(self, x: Index, y: Index) -> Index:
        if isinstance(x, int) and isinstance(y, int):
            return min(x, y)
        return self.b.bin("minsi", self.b.index(x), self.b.index(y), "i64")

    def _strips(
        self,
        total: int,
        step: int,
        start: Index,
        end: Index,
        body: Callable[[Index, int], None],
    ) -> None:
        """Call ``body`` for the strips of ``step`` in a part and for the narrower last one."""
        b, whole = self.b, total // step * step

        def full(at: Index) -> Sequence[str]:
            body(at, step)
            return ()

        def last() -> Sequence[str]:
            body(whole, total - whole)
            return ()

        if whole:
            b.loop(start, self._least(end, whole), full, step=step)
        if whole < total:
            b.cond(b.icmp("eq", end, total), last)

    def _panel(
        self,
        a: str,
        bp: str,
        cp: str,
        m: Index,
        m_end: Index,
        k: Index,
        count: Index,
        n: Index,
        width: int,
    ) -> None:
        if self.pack_b:
            self._pack_b(bp, k, count, n, width)
        tile_of = self._rows_by_rows if self.by_vectors else self._tile
        self._strips(
            self.m,
            self.blocks.tile_rows,
            m,
            m_end,
            lambda at, rows: tile_of(a, bp, cp, m, at, rows, k, count, n, width),
        )

    # --- the tile ----------------------------------------------------------------------------

    def _tile(
        self,
        a: str,
        bp: str,
        cp: str,
        m: Index,
        row: Index,
        rows: int,
        k: Index,
        count: Index,
        n: Index,
        width: int,
    ) -> None:
        b, vec, p = self.b, self.vec, self.problem
        tile = make_tile(vec, rows, width)
        lanes = len(tile.counts) * vec.lanes
        if self.shifted_a:
            starts = [b.mul(b.add(b.sub(row, m), i), self.blocks.k) for i in range(rows)]
            places = [(b.address(self.packed_a, at, vec.elem), 0) for at in starts]
            step = 1
        elif self.pack_a:
            start = b.mul(b.sub(row, m), self.blocks.k)
            here = b.address(self.packed_a, start, vec.elem)
            places = [(here, i) for i in range(rows)]
            step = rows
        else:
            bases = [b.add(p.m.offset(b, b.add(row, i)), k) for i in range(rows)]
            places = [(b.address(a, base, vec.elem), 0) for base in bases]
            step = 1
        panel, b_step = self.packed_b if self.pack_b else "", lanes
        if not self.pack_b:
            b_step = p.k_b.stride or 0
            panel = b.address(bp, b.add(b.mul(k, b_step), n), vec.elem)

        def scalars(at: Index) -> list[str]:
            return [b.load(base, b.add(b.mul(at, step), i), vec.elem) for base, i in places]

        def vectors(at: Index) -> list[str]:
            first = b.mul(at, b_step)
            counts = (vec.lanes,) * len(tile.counts) if self.pack_b else tile.counts
            return [
                vec.load(b, panel, b.add(first, j * vec.lanes), c) for j, c in enumerate(counts)
            ]

        unroll = 4 if self.k % 4 == 0 and self.blocks.k % 4 == 0 else 1
        sums = outer_products(b, vec, tile, count, unroll, scalars, vectors)
        self._store(cp, tile, sums, row, k, n)

    def _store(
        self, cp: str, tile: Tile, sums: Sequence[str], row: Index, k: Index, n: Index
    ) -> None:
        """Put the sums into C, or add them to it after the first block of k."""
        b, vec = self.b, self.vec

        def put(add: bool) -> Sequence[str]:
            for i in range(tile.rows):
                at = b.add(b.mul(b.add(row, i), self.row_c), n)
                for j, count in enumerate(tile.counts):
                    value = sums[i * len(tile.counts) + j]
                    place = b.add(at, j * vec.lanes)
                    if add:
                        value = vec.add(b, value, vec.load(b, cp, place, count))
                    vec.store(b, value, cp, place, count)
            return ()

        if isinstance(k, int):
            put(add=False)
        else:
            b.cond(b.icmp("eq", k, 0), lambda: put(add=False), lambda: put(add=True))

    def _rows_by_rows(
        self,
        a: str,
        bp: str,
        cp: str,
        m: Index,
        row: Index,
        rows: int,
        k: Index,
        count: Index,
        n: Index,
        width: int,
    ) -> None:
        """Make rows x width elements, each a product of vectors along k."""
        b, vec, p = self.b, self.vec, self.problem
        lefts = [b.address(a, p.m.offset(b, b.add(row, i)), vec.elem) for i in range(rows)]
        rights = [b.address(bp, p.n.offset(b, b.add(n, j)), vec.elem) for j in range(width)]

        def step(at: Index, values: Sequence[str], lanes: int) -> list[str]:
            left = [vec.load(b, pointer, at, lanes) for pointer in lefts]
            right = [vec.load(b, pointer, at, lanes) for pointer in rights]
            return [
                vec.mul_add(b, left[i], right[j], values[i * width + j])
                for i in range(rows)
                for j in range(width)
            ]

        whole = self.k // vec.lanes * vec.lanes
        sums = [vec.zero(b)] * (rows * width)
        sums = b.loop(
            0, whole, lambda at, *v: step(at, v, vec.lanes), sums, [vec.type] * len(sums), vec.lanes
        )
        if whole < self.k:
            sums = step(whole, sums, self.k - whole)
        for i in range(rows):
            at = b.add(b.mul(b.add(row, i), self.row_c), n)
            for j in range(width):
                b.store(vec.sum(b, sums[i * width + j]), cp, b.add(at, j), vec.elem)

    # --- packing -----------------------------------------------------------------------------

    def _pack_b(self, bp: str, k: Index, count: Index, n: Index, width: int) -> None:
        """Copy B[k : k+count, n : n+width] to scratch as rows of whole vectors, zero-filled."""
        b, vec, p = self.b, self.vec, self.problem
        counts = make_tile(vec, 1, width).counts
        row = len(counts) * vec.lanes
        if p.n.stride == 1:

            def copy(at: Index) -> Sequence[str]:
                source = b.add(p.k_b.offset(b, b.add(k, at)), n)
                for j, c in enumerate(counts):
                    value = vec.load(b, bp, b.add(source, j * vec.lanes), c)
                    where = b.add(b.mul(at, row), j * vec.lanes)
                    vec.store(b, value, self.packed_b, where, vec.lanes)
                return ()

            b.loop(0, count, copy)
        elif p.k_b.stride == 1 and self.k % vec.lanes == 0 and self.blocks.k % vec.lanes == 0:
            for j, c in enumerate(counts):
                self._pack_square(bp, k, count, n, j, c, row)
        else:
            self._pack_elements(bp, k, count, n, width, row)

    def _pack_square(
        self, bp: str, k: Index, count: Index, n: Index, j: int, valid: int, row: int
    ) -> None:
        """Pack one vector's width of columns that are contiguous in k, square by square."""
        b, vec, p = self.b, self.vec, self.problem
        starts = [b.add(p.n.offset(b, b.add(n, j * vec.lanes + i)), k) for i in range(valid)]

        def square(at: Index) -> Sequence[str]:
            rows = [vec.load(b, bp, b.add(start, at), vec.lanes) for start in starts]
            rows += [vec.zero(b)] * (vec.lanes - valid)
            for i, value in enumerate(vec.transpose(b, rows)):
                where = b.add(b.mul(b.add(at, i), row), j * vec.lanes)
                vec.store(b, value, self.packed_b, where, vec.lanes)
            return ()

        b.loop(0, count, square, step=vec.lanes)

    def _pack_elements(
        self, bp: str, k: Index, count: Index, n: Index, width: int, row: int
    ) -> None:
        """Pack element by element: any order of dimensions."""
        b, vec, p = self.b, self.vec, self.problem
        zero = b.const(0.0, vec.elem)

        def line(at: Index) -> Sequence[str]:
            source = p.k_b.offset(b, b.add(k, at))

            def copy(i: Index) -> Sequence[str]:
                value = b.load(bp, b.add(source, p.n.offset(b, b.add(n, i))), vec.elem)
                b.store(value, self.packed_b, b.add(b.mul(at, row), i), vec.elem)
                return ()

            b.loop(0, width, copy)
            for i in range(width, row):
                b.store(zero, self.packed_b, b.add(b.mul(at, row), i), vec.elem)
            return ()

        b.loop(0, count, line)

    def _pack_a(self, a: str, m: Index, m_end: Index, k: Index, count: Index) -> None:
        """Copy the part's rows of A to scratch, tile by tile, each as count rows of its height."""
        b, vec, p = self.b, self.vec, self.problem

        def tile(row: Index, rows: int) -> None:
            sources = [p.m.offset(b, b.add(row, i)) for i in range(rows)]
            start = b.mul(b.sub(row, m), self.blocks.k)

            def column(at: Index) -> Sequence[str]:
                offset = p.k_a.offset(b, b.add(k, at))
                values = [b.load(a, b.add(source, offset), vec.elem) for source in sources]
                for i, value in enumerate(values):
                    where = b.add(start, b.add(b.mul(at, rows), i))
                    b.store(value, self.packed_a, where, vec.elem)
                return ()

            b.loop(0, count, column)

        self._strips(self.m, self.blocks.tile_rows, m, m_end, tile)
