"""Writes MLIR text line by line: SSA names, nested regions, constants, index arithmetic."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Sequence

Index = int | str  # a compile-time integer, or the SSA name of an i64
Body = Callable[..., Sequence[str]]


class Builder:
    """One function body under construction.

    Equal operations in scope are written once. Constants go to the head of the function.
    """

    def __init__(self, features: frozenset[str]) -> None:
        self.features = features
        self.lines: list[str] = []
        self._constants: dict[tuple[str, str], str] = {}
        self._head: list[str] = []
        self._scopes: list[dict[str, str]] = [{}]
        self._count = 0
        self.externals: dict[str, str] = {}
        self.globals: list[str] = []
        self.global_prefix = "pai"
        self._ranges: dict[str, tuple[int, int]] = {}  # least and greatest value of an index
        self._flags = "overflow<nsw>"  # of index arithmetic

    def name(self) -> str:
        """Return a fresh SSA name."""
        self._count += 1
        return f"%{self._count}"

    def op(self, text: str) -> str:
        """Write a pure operation with one result and return its name."""
        for scope in reversed(self._scopes):
            if text in scope:
                return scope[text]
        name = self.name()
        self.lines.append(f"{name} = {text}")
        self._scopes[-1][text] = name
        return name

    def effect(self, text: str) -> None:
        """Write an operation without results."""
        self.lines.append(text)

    def fresh(self, text: str) -> str:
        """Write an operation that reads memory; never shared."""
        name = self.name()
        self.lines.append(f"{name} = {text}")
        return name

    def head(self) -> list[str]:
        """Return the constants' lines, which go before all others."""
        return self._head

    # --- constants -------------------------------------------------------------------------

    def const(self, value: float | int | bool, kind: str) -> str:
        """Return a constant of the register type ``kind``."""
        text = _literal(value, kind)
        key = (text, kind)
        if key not in self._constants:
            name = f"%c{len(self._constants)}"
            self._constants[key] = name
            suffix = "" if kind == "i1" else f" : {kind}"
            self._head.append(f"{name} = arith.constant {text}{suffix}")
        return self._constants[key]

    def index(self, value: Index) -> str:
        """Return an index as the name of an i64."""
        return self.const(value, "i64") if isinstance(value, int) else value

    # --- arithmetic ------------------------------------------------------------------------

    def bin(self, name: str, a: str, b: str, kind: str, flags: str = "") -> str:
        """Write ``arith.name a, b : kind``; names with a dot keep their dialect."""
        full = name if "." in name else f"arith.{name}"
        return self.op(f"{full} {a}, {b}{' ' + flags if flags else ''} : {kind}")

    def un(self, name: str, a: str, kind: str) -> str:
        """Write ``name a : kind`` (a dialect-qualified name)."""
        return self.op(f"{name} {a} : {kind}")

    def cast(self, name: str, a: str, source: str, target: str) -> str:
        """Write ``arith.name a : source to target``; nothing when the types are equal."""
        if source == target:
            return a
        return self.op(f"arith.{name} {a} : {source} to {target}")

    def cmp(self, predicate: str, a: str, b: str, kind: str) -> str:
        """Write a comparison; ``kind`` decides between cmpi and cmpf."""
        name = "cmpf" if kind.startswith("f") else "cmpi"
        return self.op(f"arith.{name} {predicate}, {a}, {b} : {kind}")

    def select(self, condition: str, a: str, b: str, kind: str) -> str:
        """Write a select."""
        return a if a == b else self.op(f"arith.select {condition}, {a}, {b} : {kind}")

    def mul_add(self, a: str, b: str, c: str, kind: str) -> str:
        """Return a*b + c, fused where the processor can."""
        product = self.bin("mulf", a, b, kind, "fastmath<contract>")
        return self.bin("addf", product, c, kind, "fastmath<contract>")

    def polynomial(self, x: str, coefficients: Sequence[float], kind: str) -> str:
        """Return the polynomial (highest power first) by Horner's rule."""
        value = self.const(coefficients[0], kind)
        for coefficient in coefficients[1:]:
            value = self.mul_add(value, x, self.const(coefficient, kind), kind)
        return value

    def all_of(self, conditions: Sequence[str]) -> str:
        """Return the conjunction of i1 values; true when there are none."""
        if not conditions:
            return self.const(True, "i1")
        value = conditions[0]
        for other in conditions[1:]:
            value = self.bin("andi", value, other, "i1")
        return value

    def call(self, symbol: str, arguments: Sequence[str], kinds: Sequence[str], result: str) -> str:
        """Call a pure external function such as one of libm."""
        signature = f"({', '.join(kinds)}) -> {result}"
        self.externals[symbol] = signature
        return self.op(f"func.call @{symbol}({', '.join(arguments)}) : {signature}")

    def table(self, values: Sequence[int], kind: str) -> str:
        """Return a pointer to a constant array of integers of type ``kind``."""
        size = len(values)
        body = ", ".join(map(str, values))
        symbol = f"{self.global_prefix}_data{len(self.globals)}"
        text = f"(dense<[{body}]> : tensor<{size}x{kind}>) : !llvm.array<{size} x {kind}>"
        for known in self.globals:
            if known.endswith(text):
                symbol = known.split("@")[1].split("(")[0]
                break
        else:
            self.globals.append(f"llvm.mlir.global internal constant @{symbol}{text}")
        key = (symbol, "!llvm.ptr")
        if key not in self._constants:
            name = f"%c{len(self._constants)}"
            self._constants[key] = name
            self._head.append(f"{name} = llvm.mlir.addressof @{symbol} : !llvm.ptr")
        return self._constants[key]

    @contextlib.contextmanager
    def plain_indices(self) -> Iterator[None]:
        """Write index arithmetic without the promise that it does not overflow, for a while.

        With it LLVM's O3 does not end on some small nests of tiles.
        """
        before, self._flags = self._flags, ""
        try:
            yield
        finally:
            self._flags = before

    # --- index arithmetic ------------------------------------------------------------------

    def add(self, a: Index, b: Index) -> Index:
        """Return a + b."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0 or b == 0:
            return b if a == 0 else a
        name = self.bin("addi", self.index(a), self.index(b), "i64", self._flags)
        p, q = self.range(a), self.range(b)
        return self._bounded(name, (p[0] + q[0], p[1] + q[1]) if p and q else None)

    def sub(self, a: Index, b: Index) -> Index:
        """Return a - b."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        if b == 0:
            return a
        name = self.bin("subi", self.index(a), self.index(b), "i64", self._flags)
        p, q = self.range(a), self.range(b)
        return self._bounded(name, (p[0] - q[1], p[1] - q[0]) if p and q else None)

    def mul(self, a: Index, b: Index) -> Index:
        """Return a * b."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1 or b == 1:
            return b if a == 1 else a
        return self.bin("muli", self.index(a), self.index(b), "i64", self._flags)

    def div(self, a: Index, b: int) -> Index:
        """Return a // b for a >= 0, b > 0."""
        if isinstance(a, int):
            return a // b
        if self.decide("sge", a, 0) and self.decide("slt", a, b):
            return 0
        return a if b == 1 else self.bin("divui", a, self.index(b), "i64")

    def rem(self, a: Index, b: int) -> Index:
        """Return a % b for a >= 0, b > 0."""
        if isinstance(a, int):
            return a % b
        if self.decide("sge", a, 0) and self.decide("slt", a, b):
            return a
        return 0 if b == 1 else self.bin("remui", a, self.index(b), "i64")

    def range(self, a: Index) -> tuple[int, int] | None:
        """Return the least and the greatest value of an index, where they are known."""
        return (a, a) if isinstance(a, int) else self._ranges.get(a)

    def _bounded(self, name: str, limits: tuple[int, int] | None) -> str:
        if limits is not None:
            self._ranges[name] = limits
        return name

    def decide(self, predicate: str, a: Index, b: Index) -> bool | None:
        """Return what a comparison gives if the operands' ranges say so."""
        p, q = self.range(a), self.range(b)
        if p is None or q is None:
            return None
        if predicate == "eq":
            return (p[1] >= q[0] and p[0] <= q[1]) and (True if p == q and p[0] == p[1] else None)
        swapped = predicate in ("sgt", "sge")
        if swapped:
            p, q = q, p
        strict = 1 if predicate in ("slt", "sgt") else 0
        if p[1] + strict <= q[0]:
            return True
        return False if p[0] + strict > q[1] else None

    def icmp(self, predicate: str, a: Index, b: Index) -> str:
        """Compare two indices."""
        known = self.decide(predicate, a, b)
        if known is not None:
            return self.const(known, "i1")
        return self.cmp(predicate, self.index(a), self.index(b), "i64")

    def clamp(self, a: Index, low: int, high: int) -> Index:
        """Return min(max(a, low), high)."""
        if isinstance(a, int):
            return min(max(a, low), high)
        if self.decide("sge", a, low) and self.decide("sle", a, high):
            return a
        a = self.bin("maxsi", a, self.index(low), "i64")
        return self.bin("minsi", a, self.index(high), "i64")

    def linear(self, index: Sequence[Index], shape: Sequence[int]) -> Index:
        """Return the row-major position of ``index``."""
        position: Index = 0
        stride = 1
        for i, extent in zip(reversed(index), reversed(shape), strict=True):
            position = self.add(self.mul(i, stride), position)
            stride *= extent
        return position

    def delinear(self, position: Index, shape: Sequence[int]) -> tuple[Index, ...]:
        """Return the index at a row-major position."""
        result: list[Index] = []
        rest = position
        for i, extent in enumerate(reversed(shape)):
            last = i == len(shape) - 1
            result.append(0 if extent == 1 else rest if last else self.rem(rest, extent))
            rest = self.div(rest, extent)
        return tuple(reversed(result))

    # --- regions ---------------------------------------------------------------------------

    def _region(self, body: Callable[[], Sequence[str]], kinds: Sequence[str], end: str) -> None:
        self._scopes.append({})
        results = list(body())
        self._scopes.pop()
        if kinds:
            self.lines.append(f"{end} {', '.join(results)} : {', '.join(kinds)}")

    def _results(self, kinds: Sequence[str]) -> tuple[str, list[str]]:
        if not kinds:
            return "", []
        name = self.name()
        if len(kinds) == 1:
            return f"{name} = ", [name]
        return f"{name}:{len(kinds)} = ", [f"{name}#{i}" for i in range(len(kinds))]

    def loop(
        self,
        low: Index,
        high: Index,
        body: Body,
        inits: Sequence[str] = (),
        kinds: Sequence[str] = (),
        step: Index = 1,
    ) -> list[str]:
        """Write a counted loop; ``body(iv, *carried)`` returns the new carried values."""
        if isinstance(low, int) and isinstance(high, int) and isinstance(step, int):
            if high <= low:
                return list(inits)
            if low + step >= high:
                self._scopes.append({})
                results = list(body(low, *inits))
                self._scopes.pop()
                return results
        prefix, results = self._results(kinds)
        iv = self.name()
        if isinstance(low, int) and isinstance(high, int):
            self._ranges[iv] = (low, high - 1)
        names = [self.name() for _ in inits]
        carried = ""
        if inits:
            pairs = ", ".join(f"{n} = {i}" for n, i in zip(names, inits, strict=True))
            carried = f"iter_args({pairs}) -> ({', '.join(kinds)}) "
        bounds = f"{self.index(low)} to {self.index(high)} step {self.index(step)}"
        self.lines.append(f"{prefix}scf.for {iv} = {bounds} {carried}: i64 {{")
        self._region(lambda: body(iv, *names), kinds, "scf.yield")
        self.lines.append("}")
        return results

    def loops(
        self,
        extents: Sequence[int],
        body: Body,
        inits: Sequence[str] = (),
        kinds: Sequence[str] = (),
    ) -> list[str]:
        """Write a nest of loops over ``extents``; ``body(indices, *carried)``."""

        def nest(done: tuple[Index, ...], values: Sequence[str]) -> Sequence[str]:
            if len(done) == len(extents):
                return body(done, *values)
            extent = extents[len(done)]
            return self.loop(0, extent, lambda iv, *args: nest((*done, iv), args), values, kinds)

        return list(nest((), inits))

    def cond(
        self,
        condition: str,
        then: Callable[[], Sequence[str]],
        otherwise: Callable[[], Sequence[str]] | None = None,
        kinds: Sequence[str] = (),
    ) -> list[str]:
        """Write a branch and return its results."""
        prefix, results = self._results(kinds)
        arrow = f" -> ({', '.join(kinds)})" if kinds else ""
        self.lines.append(f"{prefix}scf.if {condition}{arrow} {{")
        self._region(then, kinds, "scf.yield")
        if otherwise is not None:
            self.lines.append("} else {")
            self._region(otherwise, kinds, "scf.yield")
        self.lines.append("}")
        return results

    def while_(
        self, test: Body, body: Body, inits: Sequence[str], kinds: Sequence[str]
    ) -> list[str]:
        """Write a loop that runs while ``test(*carried)`` (one i1) holds."""
        prefix, results = self._results(kinds)
        names = [self.name() for _ in inits]
        pairs = ", ".join(f"{n} = {i}" for n, i in zip(names, inits, strict=True))
        types = ", ".join(kinds)
        self.lines.append(f"{prefix}scf.while ({pairs}) : ({types}) -> ({types}) {{")
        self._scopes.append({})
        (condition,) = test(*names)
        self._scopes.pop()
        self.lines.append(f"scf.condition({condition}) {', '.join(names)} : {types}")
        inner = [self.name() for _ in inits]
        arguments = ", ".join(f"{n}: {k}" for n, k in zip(inner, kinds, strict=True))
        self.lines.append(f"}} do {{\n^bb0({arguments}):")
        self._region(lambda: body(*inner), kinds, "scf.yield")
        self.lines.append("}")
        return results

    # --- memory ----------------------------------------------------------------------------

    def address(self, pointer: str, position: Index, kind: str) -> str:
        """Return the address of an element of type ``kind``."""
        if position == 0:
            return pointer
        if isinstance(position, int) and position < 2**31:
            where, types = str(position), "!llvm.ptr"
        else:
            where, types = self.index(position), "!llvm.ptr, i64"
        return self.op(
            f"llvm.getelementptr inbounds {pointer}[{where}] : ({types}) -> !llvm.ptr, {kind}"
        )

    def load(self, pointer: str, position: Index, kind: str) -> str:
        """Load an element of type ``kind``."""
        return self.fresh(
            f"llvm.load {self.address(pointer, position, kind)} : !llvm.ptr -> {kind}"
        )

    def store(self, value: str, pointer: str, position: Index, kind: str) -> None:
        """Store an element of type ``kind``."""
        where = self.address(pointer, position, kind)
        self.effect(f"llvm.store {value}, {where} : {kind}, !llvm.ptr")


def _literal(value: float | int | bool, kind: str) -> str:
    if kind == "f32":
        return f"0x{struct.unpack('<I', struct.pack('<f', value))[0]:08X}"
    if kind == "f64":
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    if kind == "i1":
        return "true" if value else "false"
    width = int(kind[1:])
    number = int(value) & ((1 << width) - 1)
    return str(number - (1 << width) if number >> (width - 1) else number)
