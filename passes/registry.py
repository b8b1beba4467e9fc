"""The table of passes: name to "module:Class"; a pass's module is imported when first used."""

from __future__ import annotations

REGISTRY: dict[str, str] = {
    "pai-inline": "pai.passes.simplify.inline:Inline",
    "pai-legalize": "pai.passes.simplify.legalize:Legalize",
    "pai-fold-constants": "pai.passes.simplify.fold_constants:FoldConstants",
    "pai-dtype-cleanup": "pai.passes.simplify.dtype_cleanup:DtypeCleanup",
    "pai-cse": "pai.passes.simplify.cse:CommonSubexpressions",
    "pai-dce": "pai.passes.simplify.dce:DeadCode",
    "pai-apply-plan": "pai.passes.strategy.apply_plan:ApplyPlan",
    "pai-auto-shard": "pai.passes.strategy.auto_shard:AutoShard",
    "pai-fold-padding": "pai.passes.partition.fold_padding:FoldPadding",
    "pai-propagate": "pai.passes.partition.propagate:Propagate",
    "pai-localize": "pai.passes.partition.localize:Localize",
    "pai-narrow-gathers": "pai.passes.partition.collectives.narrow:NarrowGathers",
    "pai-share-collectives": "pai.passes.partition.collectives.share:ShareCollectives",
    "pai-hoist-collectives": "pai.passes.partition.collectives.hoist:HoistCollectives",
    "pai-scatter-collectives": "pai.passes.partition.collectives.scatter:ScatterCollectives",
    "pai-reassociate-collectives": (
        "pai.passes.partition.collectives.reassociate:ReassociateCollectives"
    ),
    "pai-sink-collectives": "pai.passes.partition.collectives.sink:SinkCollectives",
    "pai-combine-collectives": "pai.passes.partition.collectives.combine:CombineCollectives",
    "pai-fold-transposes": "pai.passes.fuse.fold_transposes:FoldTransposes",
    "pai-fuse": "pai.passes.fuse.fusion:Fuse",
}
