"""Partition a model of repeated layers by partitioning a few of them.

1. `fold_layers` finds the layers of the simplified module.
2. `fold_reduce` copies the module without the middle ones; Shardy and the localizer see that.
3. The layouts next to the cut have to agree, and so do the local operations there.
4. `fold_expand` copies a layer's local operations for every layer that was left out.

When a check fails the module is partitioned whole; nothing has changed by then.
"""

from __future__ import annotations

from collections.abc import Callable

from pai.dialects.mlir import ir
from pai.passes.partition.accounts import Localized
from pai.passes.partition.annotations import function_attributes
from pai.passes.partition.fold_expand import expand, expand_account
from pai.passes.partition.fold_graph import Graph, read
from pai.passes.partition.fold_layers import Layers, find_layers
from pai.passes.partition.fold_match import Match
from pai.passes.partition.fold_reduce import (
    Reduced,
    Refused,
    check_layouts,
    choose_cut,
    reduce_module,
)
from pai.runtime.errors import PaiError


def fold_layers(
    module: ir.Module,
    propagate: Callable[[ir.Module], None],
    make_local: Callable[[ir.Module], Localized],
) -> tuple[Localized | None, str]:
    """Make ``module`` local, in place, by way of a module with fewer layers.

    Args:
        module: simplified, with the shardings of its arguments.
        propagate: gives every value of a module a sharding.
        make_local: turns a propagated module into the program of one device.

    Returns:
        What localizing found out, or None when the module is left as it was; and a note for the
        report, "" when the module has no repeated layers.
    """
    found = _layers_of(module)
    if found is None:
        return None, ""
    main, graph, layers = found
    try:
        cut = choose_cut(layers)
        reduced = reduce_module(module, main, graph, layers, cut)
        propagate(reduced.module)
        check_layouts(_main(reduced.module), reduced, layers, cut)
        out = make_local(reduced.module)
        local = _main(reduced.module)
        match = Match(local, graph, layers, cut, reduced)
        with module.context, ir.Location.unknown():
            new = expand(match, main, reduced.module.body)
            local.erase()
            reduced.module.operation.verify()
        whole = expand_account(out, match)
    except (Refused, PaiError, ir.MLIRError) as error:
        return None, f"repeated layers are not folded: {error}"
    for op in list(module.body.operations):
        op.operation.erase()
    module.body.append(new)
    return whole, f"{cut.size} of {layers.count} repeated layers are copies"


def without_middle_layers(module: ir.Module) -> Reduced | None:
    """Return a copy of a simplified module with a few of its layers; None when none repeat.

    Locations in the copy are numbers of the whole module's operations.
    """
    found = _layers_of(module)
    if found is None:
        return None
    main, graph, layers = found
    try:
        return reduce_module(module, main, graph, layers, choose_cut(layers))
    except Refused:
        return None


def _layers_of(module: ir.Module) -> tuple[ir.Operation, Graph, Layers] | None:
    """Return the one function, its graph and its repeated layers; None without any."""
    mains = [op.operation for op in module.body.operations if op.operation.name == "func.func"]
    if len(mains) != 1:
        return None
    (main,) = mains
    block = main.regions[0].blocks[0]
    keys = function_attributes(main, "arg_attrs") or [None] * len(block.arguments)
    graph = read(block, keys)
    layers = find_layers(graph)
    return None if layers is None else (main, graph, layers)


def _main(module: ir.Module) -> ir.Operation:
    (main,) = [op.operation for op in module.body.operations if op.operation.name == "func.func"]
    return main
