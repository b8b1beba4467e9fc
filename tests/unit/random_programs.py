"""Random programs in the form that the fuse stage leaves, for the schedule stage's tests."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hypothesis import strategies as st

BIG = 30_000  # elements of a splat that is filled in rather than stored
KERNELS = (
    """
func.func private @add(%a: T, %b: T) -> T attributes {pai.kernel = "loop", pai.key = "add"}
func.func private @two(%a: T) -> (T, T) attributes {pai.kernel = "loop", pai.key = "two"}
func.func private @put(%a: T, %i: tensor<i32>) -> T
    attributes {pai.kernel = "update", pai.key = "put", pai.alias = array<i64: 0, 0>}
func.func private @cast(%a: T) -> T
    attributes {pai.kernel = "bitcast", pai.key = "cast", pai.alias = array<i64: 0, 0>}
func.func private @inc(%i: tensor<i32>) -> tensor<i32>
    attributes {pai.kernel = "loop", pai.key = "inc"}
func.func private @less(%i: tensor<i32>, %n: tensor<i32>) -> tensor<i1>
    attributes {pai.kernel = "loop", pai.key = "less"}
func.func private @sumup(%a: tensor<BIGxf32>, %b: T) -> T
    attributes {pai.kernel = "reduce", pai.key = "sumup"}
func.func private @accumulate(%a: tensor<BIGxf32>, %i: tensor<i32>) -> tensor<BIGxf32>
    attributes {pai.kernel = "update", pai.key = "accumulate", pai.alias = array<i64: 0, 0>}
""".replace("T", "tensor<5xf32>")
    .replace("BIG", str(BIG))
    .replace("tensor<5xf32>ensor", "tensor")
)
TYPES = {"T": "tensor<5xf32>", "I": "tensor<i32>", "P": "tensor<i1>", "B": f"tensor<{BIG}xf32>"}


class Writer:
    """Draws a random program; every value is used at random, loops end after a few rounds."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.count = 0
        self.ops_left = 25

    def draw(self, strategy: st.SearchStrategy) -> object:
        return self.data.draw(strategy)

    def fresh(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def pick(self, values: list[str]) -> str:
        """Return one of the values; half the time one of the three newest."""
        return self.draw(st.sampled_from(values[-3:] if self.draw(st.booleans()) else values))

    def program(self) -> str:
        head = "func.func public @main(%t0: T, %t1: T, %i0: I, %n: I, %p0: P)"
        env = {"T": ["%t0", "%t1"], "I": ["%i0"], "P": ["%p0"], "B": []}
        lines = list(self.block(env, 0))
        results = [self.pick(env["T"]) for _ in range(3)] + [self.pick(env["I"])]
        if env["B"]:
            results.append(self.pick(env["B"]))
        kinds = ["T", "T", "T", "I", *(["B"] if env["B"] else [])]
        body = "\n".join(lines)
        return types(
            f"{head} -> ({', '.join(kinds)}) {{\n{body}\n"
            f"return {', '.join(results)} : {', '.join(kinds)}\n}}"
        )

    def block(self, env: dict[str, list[str]], depth: int) -> Iterator[str]:
        for _ in range(self.draw(st.integers(1, 6))):
            if self.ops_left > 0:
                self.ops_left -= 1
                choices = ["call", "call", "constant", "reduce"] + ["if", "case", "while"] * (
                    depth < 3
                )
                yield from getattr(self, f"op_{self.draw(st.sampled_from(choices))}")(env, depth)

    def op_call(self, env: dict[str, list[str]], depth: int) -> Iterator[str]:
        name = self.draw(
            st.sampled_from(["add", "two", "put", "cast", "inc", "less", "sumup", "accumulate"])
        )
        if name in ("sumup", "accumulate") and not env["B"]:
            name = "put"
        signature = {
            "add": ("TT", "T"), "two": ("T", "TT"), "put": ("TI", "T"), "cast": ("T", "T"),
            "inc": ("I", "I"), "less": ("II", "P"), "sumup": ("BT", "T"), "accumulate": ("BI", "B"),
        }[name]  # fmt: skip
        args = [self.pick(env[kind]) for kind in signature[0]]
        out = self.fresh()
        many = f"{out}:2" if len(signature[1]) == 2 else out
        yield (
            f"{many} = func.call @{name}({', '.join(args)}) : "
            f"({', '.join(signature[0])}) -> ({', '.join(signature[1])})"
        )
        made = [f"{out}#{k}" for k in range(2)] if many != out else [out]
        for kind, value in zip(signature[1], made, strict=True):
            env[kind].append(value)

    def op_constant(self, env: dict[str, list[str]], depth: int) -> Iterator[str]:
        out = self.fresh()
        kind = self.draw(st.sampled_from(["T", "B", "I"]))
        value = {"T": "[1.0, 2.0, 3.0, 4.0, 5.0]", "B": "2.5", "I": "2"}[kind]
        yield f"{out} = stablehlo.constant dense<{value}> : {kind}"
        env[kind].append(out)

    def op_reduce(self, env: dict[str, list[str]], depth: int) -> Iterator[str]:
        out = self.fresh()
        yield (
            f'{out} = "stablehlo.all_reduce"({self.pick(env["T"])}) ({{\n'
            "^bb0(%a: tensor<f32>, %b: tensor<f32>):\n %c = stablehlo.add %a, %b : tensor<f32>\n"
            " stablehlo.return %c : tensor<f32> }) {replica_groups = dense<0> : tensor<1x1xi64>}"
            " : (T) -> T"
        )
        env["T"].append(out)

    def branch(self, env: dict[str, list[str]], depth: int, kinds: list[str]) -> str:
        inner = {kind: list(values) for kind, values in env.items()}
        lines = list(self.block(inner, depth + 1))
        values = [self.pick(inner[kind]) for kind in kinds]
        returned = f"stablehlo.return {', '.join(values)} : {', '.join(kinds)}"
        return "{\n" + "\n".join([*lines, returned]) + "\n}"

    def op_if(self, env: dict[str, list[str]], depth: int, index: str = "P") -> Iterator[str]:
        out = self.fresh()
        kinds = self.draw(st.lists(st.sampled_from("TTI"), min_size=1, max_size=3))
        number = 2 if index == "P" else self.draw(st.integers(1, 3))
        branches = ", ".join(self.branch(env, depth, kinds) for _ in range(number))
        name = "if" if index == "P" else "case"
        yield (
            f'{out}:{len(kinds)} = "stablehlo.{name}"({self.pick(env[index])}) ({branches}) : '
            f"({index}) -> ({', '.join(kinds)})"
        )
        for k, kind in enumerate(kinds):
            env[kind].append(f"{out}#{k}")

    def op_case(self, env: dict[str, list[str]], depth: int) -> Iterator[str]:
        yield from self.op_if(env, depth, "I")

    def op_while(self, env: dict[str, list[str]], depth: int) -> Iterator[str]:
        """Carry a counter and random values; the body returns them in random places."""
        out, number = self.fresh(), self.count
        pool = "TTTIB" if env["B"] else "TTTI"
        kinds = ["I", *self.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4))]
        zero = self.fresh()
        yield f"{zero} = stablehlo.constant dense<0> : I"
        names = [f"%c{number}_{k}" for k in range(len(kinds))]
        inits = [zero, *(self.pick(env[kind]) for kind in kinds[1:])]
        inner = {kind: list(values) for kind, values in env.items()}
        for name, kind in zip(names, kinds, strict=True):
            inner[kind].append(name)
        condition = {kind: list(values) for kind, values in inner.items()}
        head = list(self.block(condition, 3)) if self.draw(st.booleans()) else []
        lines = list(self.block(inner, depth + 1))
        step = f"%s{number}"
        carried = [[n for n, k in zip(names, kinds, strict=True) if k == kind] for kind in kinds]
        values = [step] + [
            self.pick(carried[k] + inner[kind][-3:]) for k, kind in enumerate(kinds) if k
        ]
        pairs = ", ".join(f"{name} = {init}" for name, init in zip(names, inits, strict=True))
        yield "\n".join([
            f"{out}:{len(kinds)} = stablehlo.while({pairs}) : {', '.join(kinds)}",
            "cond {", *head,
            f"%q{number} = func.call @less({names[0]}, %n) : (I, I) -> P",
            f"stablehlo.return %q{number} : P", "} do {", *lines,
            f"{step} = func.call @inc({names[0]}) : (I) -> I",
            f"stablehlo.return {', '.join(values)} : {', '.join(kinds)}", "}",
        ])  # fmt: skip
        for k, kind in enumerate(kinds):
            env[kind].append(f"{out}#{k}")


def types(text: str) -> str:
    """Write the letters of ``TYPES`` out."""
    for letter, name in TYPES.items():
        text = re.sub(rf"(?<=[ (]){letter}(?=[,) \n]|$)", name, text, flags=re.MULTILINE)
    return text
