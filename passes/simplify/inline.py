"""pai-inline: put the bodies of called functions in place of the calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir, run_pipeline, sdy
from pai.dialects.sdy import argument_sharding, result_sharding
from pai.passes.base import Pass
from pai.passes.rewrite import collect, functions, replace, where
from pai.runtime.errors import InvalidModel


@dataclass(frozen=True)
class Inline(Pass):
    """Inline every ``func.call``, also inside regions, and drop functions no longer needed.

    Kernels (functions with ``pai.kernel``) stay. Shardings on the callee's arguments and results
    become ``sdy.sharding_constraint``. A recursive call is an InvalidModel error.

    Before::

        func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
          %0 = call @square(%a) : (tensor<4xf32>) -> tensor<4xf32>
          return %0 : tensor<4xf32>
        }
        func.func private @square(%x: tensor<4xf32>) -> tensor<4xf32> {
          %0 = stablehlo.multiply %x, %x : tensor<4xf32>
          return %0 : tensor<4xf32>
        }

    After::

        func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
          %0 = stablehlo.multiply %a, %a : tensor<4xf32>
          return %0 : tensor<4xf32>
        }
    """

    name: ClassVar[str] = "pai-inline"

    def run(self, module: ir.Module) -> None:
        """Inline all calls of ``module`` in place."""
        table = functions(module)
        calls = {name: _inlinable_calls(func, table) for name, func in table.items()}
        if any(calls.values()):
            for name in _callees_first(calls):
                for call in calls[name]:
                    _inline_call(call, table[_callee(call)])
        if any("sym_visibility" in func.attributes for func in table.values()):
            table.clear()
            run_pipeline(module, "symbol-dce")


def _callee(call: ir.Operation) -> str:
    return str(ir.FlatSymbolRefAttr(call.attributes["callee"]).value)


def _inlinable_calls(func: ir.OpView, table: dict[str, ir.OpView]) -> list[ir.Operation]:
    """Return the calls inside ``func`` that are to be inlined."""
    out = []
    for call in collect(func, "func.call"):
        callee = table.get(_callee(call))
        if callee is None or callee.is_external:
            raise InvalidModel(f"@{_callee(call)} is called but has no body", where(call))
        if "pai.kernel" not in callee.attributes:
            out.append(call)
    return out


def _callees_first(calls: dict[str, list[ir.Operation]]) -> list[str]:
    """Order the functions so that each comes after those it calls; refuse recursion."""
    order: list[str] = []
    state: dict[str, int] = {}
    stack = [(name, iter(found)) for name, found in reversed(calls.items())]
    while stack:
        name, pending = stack[-1]
        if state.get(name) == 2:
            stack.pop()
            continue
        state[name] = 1
        for call in pending:
            callee = _callee(call)
            if state.get(callee) == 1:
                raise InvalidModel(f"@{callee} calls itself (recursion)", where(call))
            if callee not in state:
                stack.append((callee, iter(calls[callee])))
                break
        else:
            state[name] = 2
            order.append(name)
            stack.pop()
    return order


def _inline_call(call: ir.Operation, callee: ir.OpView) -> None:
    """Replace ``call`` by a copy of the body of ``callee``."""
    copy = callee.operation.clone(ip=ir.InsertionPoint(callee.operation))
    block = copy.regions[0].blocks[0]
    for index, (argument, value) in enumerate(zip(block.arguments, call.operands, strict=True)):
        constrained = _constrain(call, value, argument_sharding(callee, index))
        argument.replace_all_uses_with(constrained)
    *body, terminator = [op.operation for op in block.operations]
    for op in body:
        op.move_before(call)
    results = [
        _constrain(call, value, result_sharding(callee, index))
        for index, value in enumerate(terminator.operands)
    ]
    replace(call, results)
    copy.erase()


def _constrain(call: ir.Operation, value: ir.Value, sharding: ir.Attribute | None) -> ir.Value:
    if sharding is None:
        return value
    with call.location, ir.InsertionPoint(call):
        return sdy.ShardingConstraintOp(value, sharding).result
