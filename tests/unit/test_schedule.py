"""The schedule stage: random programs run on a simulated memory give what their IR says.

The simulator keeps one byte array per space and fills the arena with rubbish, so a buffer that is
overwritten while it is needed, or read before it is written, shows in the results.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import KERNELS, Writer, types

from pai.dialects.constants import constant_value
from pai.dialects.mlir import ir, parse
from pai.dialects.types import numpy_dtype, shape_of
from pai.passes.rewrite import main_function
from pai.passes.schedule import ProgramCode, schedule
from pai.passes.schedule.arena import assign_offsets, peak_bytes
from pai.runtime.errors import PassFailure
from pai.runtime.program import (
    Call,
    Case,
    Collective,
    Copy,
    Fill,
    Instruction,
    While,
    from_json,
    to_json,
    walk,
)


def kernel(name: str, args: list[np.ndarray]) -> list[np.ndarray]:
    """The kernels' meaning; ``put`` and ``accumulate`` get the old content first."""
    match name:
        case "add":
            return [args[0] + 2 * args[1]]
        case "two":
            return [args[0] + 1, args[0] * 3]
        case "put":
            out = args[0].copy()
            out[int(args[1]) % 5] += 7
            return [out]
        case "cast":
            return [args[0]]
        case "inc":
            return [args[0] + np.int32(1)]
        case "less":
            return [np.asarray(args[0] < args[1])]
        case "sumup":
            return [args[1] + args[0].sum()]
        case "accumulate":
            out = args[0].copy()
            out[int(args[1])] += 1
            return [out]
    raise AssertionError(name)


def interpret(block: ir.Block, env: dict[ir.Value, np.ndarray]) -> list[np.ndarray]:
    """Run a block as its IR says."""
    *body, last = [op.operation for op in block.operations]
    for op in body:
        args = [env[v] for v in op.operands]
        match op.name:
            case "func.call":
                made = kernel(ir.FlatSymbolRefAttr(op.attributes["callee"]).value, args)
            case "stablehlo.constant":
                made = [np.array(constant_value(op))]
            case "stablehlo.if":
                made = interpret(op.regions[0 if args[0] else 1].blocks[0], env)
            case "stablehlo.case":
                index = int(args[0])
                index = index if 0 <= index < len(op.regions) else len(op.regions) - 1
                made = interpret(op.regions[index].blocks[0], env)
            case "stablehlo.while":
                condition, loop = (region.blocks[0] for region in op.regions)
                made = args
                while interpret(condition, env | dict(zip(condition.arguments, made, strict=True)))[
                    0
                ]:
                    made = interpret(loop, env | dict(zip(loop.arguments, made, strict=True)))
            case "stablehlo.all_reduce":
                made = args
            case other:
                raise AssertionError(other)
        env.update(zip(op.results, made, strict=True))
    return [env[v] for v in last.operands]


@dataclass
class Simulator:
    """Runs a ProgramCode on bytes."""

    code: ProgramCode
    arguments: list[np.ndarray]
    types: dict[str, tuple[list, list]]
    memory: dict[str, np.ndarray] = field(default_factory=dict)

    def run(self) -> list[bytes]:
        rubbish = np.random.default_rng(0).integers(1, 255, self.code.arena_bytes, dtype=np.uint8)
        self.memory["arena"] = rubbish
        for i, value in enumerate(self.arguments):
            self.memory[f"argument{i}"] = np.frombuffer(value.tobytes(), np.uint8).copy()
        for i, constant in enumerate(self.code.constants):
            assert constant.value is not None
            self.memory[f"constant{i}"] = np.frombuffer(constant.value.tobytes(), np.uint8)
        self.block(self.code.code)
        return [self.at(number).tobytes() for number in self.code.results]

    def at(self, number: int) -> np.ndarray:
        buffer = self.code.buffers[number]
        if buffer.space == "arena":
            return self.memory["arena"][buffer.offset : buffer.offset + buffer.size]
        name = f"{buffer.space}{buffer.offset}"
        return self.memory.setdefault(name, np.full(buffer.size, 0xAA, np.uint8))

    def block(self, code: tuple[Instruction, ...]) -> None:
        for instruction in code:
            match instruction:
                case Call(name, buffers):
                    self.call(name, buffers)
                case Copy(source, target):
                    self.at(target)[:] = self.at(source)
                case Fill(target, pattern):
                    into = self.at(target)
                    into[:] = np.frombuffer(pattern * (len(into) // len(pattern)), np.uint8)
                case Collective():
                    for source, target in zip(
                        instruction.sources, instruction.targets, strict=True
                    ):
                        clear = not np.shares_memory(self.at(source), self.at(target))
                        assert clear or (source == target and instruction.kind == "all_reduce")
                        self.at(target)[:] = self.at(source)
                case While(predicate, condition, body):
                    self.block(condition)
                    while self.at(predicate)[0]:
                        self.block(body)
                        self.block(condition)
                case Case(index, branches):
                    raw = self.at(index).tobytes()
                    chosen = int.from_bytes(raw, "little")
                    self.block(branches[min(chosen, len(branches) - 1)])

    def call(self, name: str, buffers: tuple[int, ...]) -> None:
        ins, outs = self.types[name]
        args = [self.typed(n, t) for n, t in zip(buffers[: len(ins)], ins, strict=True)]
        targets = [self.typed(n, t) for n, t in zip(buffers[len(ins) :], outs, strict=True)]
        aliased = name in ("put", "accumulate")
        for k, target in enumerate(targets):
            for j, arg in enumerate(args):
                shared = np.shares_memory(arg, target)
                assert not shared or (aliased and j == 0 and self.same(arg, target))
            for other in targets[:k]:
                assert not np.shares_memory(other, target)
        if aliased:  # the kernel reads what the result's buffer starts out with
            args[0] = targets[0]
        made = kernel(name, [a.copy() for a in args])
        for target, value in zip(targets, made, strict=True):
            target[...] = value

    def same(self, a: np.ndarray, b: np.ndarray) -> bool:
        return a.ctypes.data == b.ctypes.data and a.nbytes == b.nbytes

    def typed(self, number: int, kind: tuple[np.dtype, tuple[int, ...]]) -> np.ndarray:
        return self.at(number).view(kind[0]).reshape(kind[1])


def check(text: str) -> ProgramCode:
    """Schedule a program and hold the simulated run against the IR."""
    module = parse(text + KERNELS)
    main = main_function(module)
    rng = np.random.default_rng(1)
    block = main.regions[0].blocks[0]
    arguments = []
    for value in block.arguments:
        dtype, shape = numpy_dtype(value.type), shape_of(value.type)
        data = rng.integers(1, 4, shape) if dtype.kind == "i" else rng.random(shape) < 0.5
        if dtype.kind == "f":
            data = rng.integers(0, 10, shape)
        arguments.append(np.asarray(data, dtype))
    copies = [a.copy() for a in arguments]
    want = interpret(block, dict(zip(block.arguments, copies, strict=True)))
    code = schedule(module)
    assert from_json(to_json(code)) == code
    types = {
        op.name.value: (
            [(numpy_dtype(t), shape_of(t)) for t in op.type.inputs],
            [(numpy_dtype(t), shape_of(t)) for t in op.type.results],
        )
        for op in module.body.operations
    }
    simulator = Simulator(code, arguments, types)
    for got, value in zip(simulator.run(), want, strict=True):
        np.testing.assert_array_equal(np.frombuffer(got, value.dtype).reshape(value.shape), value)
    written = {n for i in walk(code.code) for n in targets_of(i, types)}
    for number in written:
        buffer = code.buffers[number]
        assert buffer.space in ("arena", "result") or buffer.offset in donated(text)
    return code


def donated(text: str) -> set[int]:
    return {0} if 'pai.role = "state"' in text else set()


def targets_of(instruction: Instruction, types: dict) -> tuple[int, ...]:
    match instruction:
        case Call(name, buffers):
            return buffers[len(types[name][0]) :]
        case Copy(_, target) | Fill(target, _):
            return (target,)
        case Collective():
            return instruction.targets
    return ()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_random_programs(data: st.DataObject) -> None:
    check(Writer(data).program())


LOOP = """
func.func public @main(%x: T, %n: I) -> (T, I) {
  %z = stablehlo.constant dense<0> : I
  %y = func.call @add(%x, %x) : (T, T) -> T
  %r:2 = stablehlo.while(%i = %z, %a = %y) : I, T
  cond { %q = func.call @less(%i, %n) : (I, I) -> P
    stablehlo.return %q : P }
  do { %b = func.call @put(%a, %i) : (T, I) -> T
    %j = func.call @inc(%i) : (I) -> I
    stablehlo.return %j, %b : I, T }
  return %r#1, %r#0 : T, I
}
"""


def test_loops_update_what_they_carry_in_place() -> None:
    code = check(types(LOOP))
    (only,) = [i for i in code.code if isinstance(i, While)]
    copies = [i for i in only.body if isinstance(i, Copy)]
    assert len(copies) == 1  # only the counter, which @put still reads
    assert sum(isinstance(i, Copy) for i in code.code) == 1  # only the constant zero


def test_carried_values_may_swap() -> None:
    code = check(types(LOOP.replace("%a = %y", "%a = %y, %c = %x").replace(
        ": I, T\n", ": I, T, T\n").replace("%r:2", "%r:3").replace(
        "%b = func.call @put(%a, %i) : (T, I) -> T", "").replace(
        "%j, %b : I, T", "%j, %c, %a : I, T, T")))  # fmt: skip
    (only,) = [i for i in code.code if isinstance(i, While)]
    assert sum(isinstance(i, Copy) for i in only.body) == 1 + 3  # the counter, the swap


def loop(body: str, returned: str, condition: str = "") -> str:
    """A loop that carries a counter and two values, with %y and %x from outside."""
    return types(f"""
      func.func public @main(%x: T, %n: I) -> (T, T) {{
        %z = stablehlo.constant dense<0> : I
        %y = func.call @add(%x, %x) : (T, T) -> T
        %s = func.call @add(%x, %y) : (T, T) -> T
        %r:3 = stablehlo.while(%i = %z, %a = %s, %c = %x) : I, T, T
        cond {{ {condition}
          %q = func.call @less(%i, %n) : (I, I) -> P
          stablehlo.return %q : P }}
        do {{ {body}
          %j = func.call @inc(%i) : (I) -> I
          stablehlo.return %j, {returned} : I, T, T }}
        return %r#1, %r#2 : T, T
      }}
    """)


def test_conditions_do_not_change_what_is_carried() -> None:
    check(loop("", "%c, %a", "%w = func.call @put(%a, %i) : (T, I) -> T"))


def test_outer_values_stay_through_every_round() -> None:
    body = """
      %b = func.call @add(%y, %a) : (T, T) -> T
      %d = func.call @add(%b, %b) : (T, T) -> T
      %e = func.call @add(%d, %b) : (T, T) -> T
      %f = func.call @add(%e, %d) : (T, T) -> T
    """
    check(loop(body, "%f, %e"))


def test_a_view_keeps_what_is_carried_alive() -> None:
    body = """
      %v = func.call @cast(%a) : (T) -> T
      %m = func.call @add(%c, %c) : (T, T) -> T
      %w = func.call @add(%v, %m) : (T, T) -> T
    """
    check(loop(body, "%m, %w"))


def test_updated_states_are_changed_in_place() -> None:
    text = types("""
      func.func public @main(%s: T {pai.name = "s", pai.role = "state"}, %i: I) ->
          (T {pai.name = "s", pai.updates = "s"}) {
        %t = func.call @put(%s, %i) : (T, I) -> T
        return %t : T
      }
    """)
    code = check(text)
    assert code.results == code.arguments[:1]
    assert not any(isinstance(i, Copy) for i in code.code)
    kept = check(text.replace(', pai.updates = "s"', "").replace('"state"', '"input"'))
    assert kept.results != kept.arguments[:1]


def test_large_splats_are_filled_in() -> None:
    code = check(
        types("""
      func.func public @main(%i: I) -> B {
        %z = stablehlo.constant dense<0.0> : B
        %t = func.call @accumulate(%z, %i) : (B, I) -> B
        return %t : B
      }
    """)
    )
    assert not code.constants
    assert [type(i) for i in code.code] == [Fill, Call]


def test_what_is_no_instruction_is_refused() -> None:
    text = "func.func public @main(%x: T) -> T { %y = stablehlo.add %x, %x : T\n return %y : T }"
    with pytest.raises(PassFailure, match="cannot be an instruction"):
        schedule(parse(types(text)))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(0, 5000))))
def test_arena_has_no_overlap(spans: list[tuple[int, int, int]]) -> None:
    lifetimes = [(first, first + length, size) for first, length, size in spans]
    offsets, total = assign_offsets(lifetimes)
    for k, (first, last, size) in enumerate(lifetimes):
        assert offsets[k] % 64 == 0 and offsets[k] + size <= max(total, 0) + 64 * (size == 0)
        for j in range(k):
            apart = lifetimes[j][1] < first or last < lifetimes[j][0]
            clear = offsets[j] + lifetimes[j][2] <= offsets[k] or offsets[k] + size <= offsets[j]
            assert apart or clear or size == 0 or lifetimes[j][2] == 0
    assert peak_bytes(lifetimes) <= total <= sum(-(-s // 64) * 64 for _, _, s in lifetimes)


def test_a_chain_needs_two_buffers() -> None:
    offsets, total = assign_offsets([(k, k + 1, 100) for k in range(50)])
    assert total == 256
    assert set(offsets) == {0, 128}
