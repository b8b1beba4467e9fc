"""pai-fold-constants: compute now what does not depend on the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from pai.dialects.constants import all_equal, constant, constant_value
from pai.dialects.mlir import ir
from pai.dialects.types import element_type, is_static_tensor, num_elements, shape_of
from pai.passes.base import Pass
from pai.passes.rewrite import building_before, functions
from pai.passes.simplify.build import broadcast
from pai.passes.simplify.fold_control import chosen_region, loop_never_runs
from pai.passes.simplify.fold_evaluate import evaluate, is_splat, one
from pai.passes.simplify.fold_identities import simplify_op
from pai.runtime.dtypes import DTYPES

_CHEAP = frozenset({"stablehlo.constant", "stablehlo.iota", "stablehlo.broadcast_in_dim"})


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Fold constants, identities that hold bit for bit, and control flow on constants.

    Integers (shape arithmetic) are evaluated up to ``max_elements`` elements, floating-point
    values when all elements are the same. A folded tensor of one value becomes the broadcast of a
    scalar. Large constants are never read, and ``iota`` stays as it is.

    Options: ``max-elements`` (default 64).

    Before::

        %c = stablehlo.constant dense<1.0> : tensor<f32>
        %0 = stablehlo.broadcast_in_dim %c, dims = [] : (tensor<f32>) -> tensor<4xf32>
        %1 = stablehlo.multiply %a, %0 : tensor<4xf32>
        %t = stablehlo.constant dense<true> : tensor<i1>
        %2 = "stablehlo.if"(%t) ({ stablehlo.return %1 : tensor<4xf32> },
                                 { stablehlo.return %b : tensor<4xf32> })
               : (tensor<i1>) -> tensor<4xf32>
        return %2 : tensor<4xf32>

    After (and ``pai-dce``)::

        return %a : tensor<4xf32>
    """

    name: ClassVar[str] = "pai-fold-constants"
    max_elements: int = 64

    def run(self, module: ir.Module) -> None:
        """Fold ``module`` in place, in one walk from the first operation to the last."""
        for func in functions(module).values():
            if not func.is_external:
                folder = _Folder(self.max_elements)
                for block in func.regions[0].blocks:
                    folder.block(block)


@dataclass
class _Folder:
    """One walk over a function: the values known so far, and those already looked at."""

    limit: int
    known: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    done: set[ir.Value] = field(default_factory=set)

    def block(self, block: ir.Block) -> None:
        """Fold the operations of a block in order."""
        pending = [op.operation for op in reversed(list(block.operations))]
        while pending:
            op = pending.pop()
            moved = self._control(op)
            if moved is not None:
                pending.extend(reversed(moved))
                continue
            self._fold(op)

    def _fold(self, op: ir.Operation) -> None:
        if len(op.results) == 1:
            value = simplify_op(op, self.known) if op.name != "stablehlo.constant" else None
            while value is not None:
                self._replace(op, [value])
                owner = value.owner
                if isinstance(owner, ir.Block) or value in self.done:
                    return
                op = owner.operation
                value = simplify_op(op, self.known)
            if self._evaluate(op):
                return
            self.done.add(op.results[0])
        for region in op.regions:
            for inner in region.blocks:
                self.block(inner)

    def _evaluate(self, op: ir.Operation) -> bool:
        """Record what is known of the result; return whether ``op`` was replaced."""
        type_ = op.results[0].type
        if not is_static_tensor(type_) or str(element_type(type_)) not in DTYPES:
            return False
        if op.name == "stablehlo.constant":
            return self._read(op)
        operands = [self.known.get(value) for value in op.operands]
        if any(value is None for value in operands):
            return False
        if op.name == "stablehlo.iota" and num_elements(type_) > self.limit:
            return False
        value = evaluate(op, [v for v in operands if v is not None])
        if value is None or not (is_splat(value) or value.size <= self.limit):
            return False
        if op.name in _CHEAP:
            self.known[op.results[0]] = value
            return False
        with building_before(op):
            new = self._materialize(value, type_)
        self._learn(new, value)
        self._replace(op, [new])
        return True

    def _read(self, op: ir.Operation) -> bool:
        """Record a small or splat constant; replace a wide splat by a broadcast scalar."""
        type_ = op.results[0].type
        count = num_elements(type_)
        if count > self.limit:
            attr = _attribute(op)
            if attr is None or not attr.is_splat:
                return False
        elif count == 0:
            return False
        value = constant_value(op)
        if not is_splat(value) and all_equal(value):
            value = np.broadcast_to(one(value), value.shape)
        self.known[op.results[0]] = value
        if count <= self.limit:
            return False
        with building_before(op):
            new = self._materialize(value, type_)
        self._learn(new, value)
        self._replace(op, [new])
        return True

    def _learn(self, new: ir.Value, value: np.ndarray) -> None:
        self.known[new] = value
        self.done.add(new)

    def _materialize(self, value: np.ndarray, type_: ir.Type) -> ir.Value:
        if not is_splat(value) or value.ndim == 0:
            return constant(value, type_)
        element = constant(one(value), ir.RankedTensorType.get([], type_.element_type))
        self._learn(element, one(value))
        return broadcast(element, shape_of(type_))

    def _control(self, op: ir.Operation) -> list[ir.Operation] | None:
        """Resolve an if, case or while on known values; return the operations moved out of it."""
        if op.name in {"stablehlo.if", "stablehlo.case"}:
            region = chosen_region(op, self.known)
            if region is None:
                return None
            *body, terminator = [inner.operation for inner in region.blocks[0].operations]
            for inner in body:
                inner.move_before(op)
            self._replace(op, list(terminator.operands))
            return body
        if op.name == "stablehlo.while" and loop_never_runs(op, self.known):
            self._replace(op, list(op.operands))
            return []
        return None

    def _replace(self, op: ir.Operation, values: list[ir.Value]) -> None:
        """Replace an operation; forget its values, whose addresses may be used again."""
        for old, new in zip(op.results, values, strict=True):
            self.known.pop(old, None)
            self.done.discard(old)
            old.replace_all_uses_with(new)
        op.erase()


def _attribute(op: ir.Operation) -> ir.DenseElementsAttr | None:
    """Return the dense attribute of a constant; None when the bindings cannot hold it."""
    try:
        attr = op.attributes["value"]
    except TypeError:  # complex elements have no class in the bindings
        return None
    return attr if isinstance(attr, ir.DenseElementsAttr) else None
