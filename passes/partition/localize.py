"""pai-localize: turn a module whose values carry shardings into the program of one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.dialects.sdy import mesh_from_module, mesh_ops
from pai.passes.base import Pass
from pai.passes.partition.accounts import Localized
from pai.passes.partition.annotations import axis_cuts, plain_constants
from pai.passes.partition.layout import Grid
from pai.passes.partition.localizer import Localizer
from pai.runtime.errors import InvalidSharding, PassFailure
from pai.runtime.mesh import Mesh


@dataclass(frozen=True)
class Localize(Pass):
    """Give every value its local type and put collectives where layouts meet.

    Before, after pai-propagate::

        %0 = stablehlo.dot_general %x, %w {sdy.sharding = <[<@mesh, [{"x"}, {}]>]>}
            : (tensor<8x16xf32>, tensor<16x4xf32>) -> tensor<8x4xf32>

    After, on two devices::

        %0 = stablehlo.dot_general %x, %w : (tensor<4x16xf32>, tensor<16x4xf32>) -> tensor<4x4xf32>

    Args:
        strict: refuse, instead of gathering, an operand that an operation needs whole.
    """

    name: ClassVar[str] = "pai-localize"
    strict: bool = False

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place; see `localize`."""
        localize(module, strict=self.strict)


def localize(
    module: ir.Module,
    *,
    mesh: Mesh | None = None,
    strict: bool = False,
    gather_factors: bool = True,
) -> Localized:
    """Make ``@main`` of a propagated module local, in place.

    Args:
        module: the propagated module.
        mesh: the devices; the module's own when None.
        strict: see Localize.
        gather_factors: whether the factors of a contraction may be gathered where that is cheaper
            than summing its results.

    Raises:
        InvalidSharding: no mesh, or with ``strict`` an operand that has to be gathered because its
            operation has no sharded form.
        UnsupportedOp: an operation that means nothing in a partitioned program.
        PassFailure: the result does not verify (a bug here, never a wrong program).
    """
    mesh = mesh or mesh_from_module(module)
    if mesh is None:
        raise InvalidSharding("the module has no sdy.mesh", hint="run the strategy stage first")
    out = Localized(mesh)
    with module.context, ir.Location.unknown():
        plain_constants(module)
        grid = Grid(mesh, axis_cuts(module))
        mains = [op for op in module.body.operations if op.operation.name == "func.func"]
        if len(mains) != 1:
            raise PassFailure(
                f"pai-localize wants one function but the module has {len(mains)}",
                hint="run the simplify stage first",
            )
        localizer = Localizer(grid, out, strict=strict, gather_factors=gather_factors)
        localizer.function(mains[0].operation)
        for op in list(mesh_ops(module)):
            op.operation.erase()
        try:
            module.operation.verify()
        except ir.MLIRError as error:
            raise PassFailure(f"pai-localize made an invalid module: {error}") from error
    return out
