"""Register tiles: vectors, masked tails and the inner loop that dot and convolution share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.target import CpuTarget


@dataclass(frozen=True)
class Vec:
    """A vector type of the target.

    Args:
        elem: ``f32`` or ``f64``.
        lanes: elements of one register.
        fused: the processor has a fused multiply-add.
    """

    elem: str
    lanes: int
    fused: bool

    @property
    def type(self) -> str:
        """The MLIR type."""
        return f"vector<{self.lanes}x{self.elem}>"

    @property
    def bytes(self) -> int:
        """Bytes of one element."""
        return int(self.elem[1:]) // 8

    def zero(self, b: Builder) -> str:
        """Return a vector of zeros."""
        return b.op(f"arith.constant dense<0.0> : {self.type}")

    def load(self, b: Builder, pointer: str, at: Index, count: int) -> str:
        """Load ``count`` elements from any address; the other lanes are zero."""
        address = b.address(pointer, at, self.elem)
        if count == self.lanes:
            return b.fresh(
                f"llvm.load {address} {{alignment = {self.bytes} : i64}} : !llvm.ptr -> {self.type}"
            )
        return b.fresh(
            f"llvm.intr.masked.load {address}, {self.mask(b, count)}, {self.zero(b)} "
            f"{{alignment = {self.bytes} : i32}} : (!llvm.ptr, vector<{self.lanes}xi1>, "
            f"{self.type}) -> {self.type}"
        )

    def store(self, b: Builder, value: str, pointer: str, at: Index, count: int) -> None:
        """Store the first ``count`` lanes to any address."""
        address = b.address(pointer, at, self.elem)
        if count == self.lanes:
            b.effect(
                f"llvm.store {value}, {address} {{alignment = {self.bytes} : i64}} : "
                f"{self.type}, !llvm.ptr"
            )
        else:
            b.effect(
                f"llvm.intr.masked.store {value}, {address}, {self.mask(b, count)} "
                f"{{alignment = {self.bytes} : i32}} : {self.type}, vector<{self.lanes}xi1> "
                "into !llvm.ptr"
            )

    def mask(self, b: Builder, count: int) -> str:
        """Return the mask of the first ``count`` lanes."""
        bits = ", ".join("true" if lane < count else "false" for lane in range(self.lanes))
        return b.op(f"arith.constant dense<[{bits}]> : vector<{self.lanes}xi1>")

    def splat(self, b: Builder, scalar: str) -> str:
        """Return a vector with ``scalar`` in every lane."""
        return b.op(f"vector.broadcast {scalar} : {self.elem} to {self.type}")

    def mul_add(self, b: Builder, x: str, y: str, z: str) -> str:
        """Return x*y + z."""
        if self.fused:
            return b.fresh(f"math.fma {x}, {y}, {z} : {self.type}")
        product = b.fresh(f"arith.mulf {x}, {y} : {self.type}")
        return b.fresh(f"arith.addf {product}, {z} : {self.type}")

    def add(self, b: Builder, x: str, y: str) -> str:
        """Return x + y."""
        return b.fresh(f"arith.addf {x}, {y} : {self.type}")

    def sum(self, b: Builder, x: str) -> str:
        """Return the sum of the lanes, added in a tree."""
        return b.fresh(
            f"vector.reduction <add>, {x} fastmath<reassoc> : {self.type} into {self.elem}"
        )

    def transpose(self, b: Builder, rows: Sequence[str]) -> list[str]:
        """Return the transpose of a square of ``lanes`` rows, by pairwise interleaving.

        Interleaving row i with row i + lanes/2, log2(lanes) times over, transposes the square.
        """
        n = self.lanes
        low = ", ".join(f"{i}, {i + n}" for i in range(n // 2))
        high = ", ".join(f"{i}, {i + n}" for i in range(n // 2, n))
        current = list(rows)
        for _ in range(n.bit_length() - 1):
            following: list[str] = []
            for i in range(n // 2):
                x, y = current[i], current[i + n // 2]
                for lanes in (low, high):
                    text = f"vector.shuffle {x}, {y} [{lanes}] : {self.type}, {self.type}"
                    following.append(b.fresh(text))
            current = following
        return current


def vec_of(target: CpuTarget, elem: str) -> Vec:
    """Return the target's vector of ``f32`` or ``f64``."""
    return Vec(elem, target.lanes(int(elem[1:])), "fma" in target.features)


@dataclass(frozen=True)
class Tile:
    """A block of the result held in registers.

    Args:
        rows: number of rows.
        counts: elements of each vector of a row; all but the last are full.
    """

    rows: int
    counts: tuple[int, ...]

    @property
    def width(self) -> int:
        """Elements of one row."""
        return sum(self.counts)


def make_tile(vec: Vec, rows: int, width: int) -> Tile:
    """Return the tile of ``rows`` by ``width`` elements."""
    full, rest = divmod(width, vec.lanes)
    return Tile(rows, (vec.lanes,) * full + ((rest,) if rest else ()))


# (step) -> one scalar per row; (step) -> one vector per vector of a row
Scalars = Callable[[Index], Sequence[str]]
Vectors = Callable[[Index], Sequence[str]]


def outer_products(
    b: Builder,
    vec: Vec,
    tile: Tile,
    steps: Index,
    unroll: int,
    scalars: Scalars,
    vectors: Vectors,
    start: Sequence[str] | None = None,
) -> list[str]:
    """Add ``steps`` outer products of a column of scalars and a row of vectors in registers.

    Args:
        b: where to write.
        vec: the vector type.
        tile: the block; its accumulators start at zero.
        steps: number of products.
        unroll: divides ``steps``.
        scalars: loads the scalars of a step.
        vectors: loads the vectors of a step.
        start: accumulators to add to; None starts at zero.

    Returns:
        The accumulators, row by row.
    """

    def body(step: Index, *values: str) -> list[str]:
        accumulators = list(values)
        for u in range(unroll):
            at = b.add(step, u)
            row = vectors(at)
            column = scalars(at)
            for i in range(tile.rows):
                factor = vec.splat(b, column[i])
                for j in range(len(tile.counts)):
                    n = i * len(tile.counts) + j
                    accumulators[n] = vec.mul_add(b, factor, row[j], accumulators[n])
        return accumulators

    count = tile.rows * len(tile.counts)
    zeros = list(start) if start is not None else [vec.zero(b)] * count
    return b.loop(0, steps, body, zeros, [vec.type] * count, step=unroll)
