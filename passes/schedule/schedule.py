"""The schedule stage: program order, lifetimes, buffers.

Before::

    func.func public @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %0 = call @kernel_a(%x) : (tensor<4xf32>) -> tensor<4xf32>
      %1 = "stablehlo.all_reduce"(%0) ...
      return %1
    }

After (a ``ProgramCode``)::

    buffers  0: argument 0, 1: arena [0, 16), 2: result 0
    code     call kernel_a (0, 1); all_reduce 1 -> 2
"""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.passes.rewrite import functions, main_function
from pai.passes.schedule.arena import assign_offsets
from pai.passes.schedule.storage import Storage
from pai.passes.schedule.walk import Walker
from pai.runtime.program import Buffer, ProgramCode


def schedule(module: ir.Module) -> ProgramCode:
    """Order the operations of ``@main`` and give every value a buffer.

    States that a result updates (``pai.role``, ``pai.updates``) may be overwritten once dead.

    Args:
        module: a local module after the fuse stage.

    Raises:
        PassFailure: for an operation that cannot be an instruction.
    """
    main = main_function(module)
    walker = Walker(functions(module), donated_arguments(main))
    returned = walker.run(main.regions[0].blocks[0])
    results = [walker.storages[number] for number in returned]
    for number, storage in enumerate(results):
        if storage.space == "arena":
            storage.space, storage.index = "result", number
    buffers, arena_bytes = _place(walker.storages)
    return ProgramCode(
        tuple(buffers),
        tuple(walker.arguments),
        tuple(storage.number for storage in results),
        tuple(walker.constants),
        arena_bytes,
        tuple(walker.code),
    )


def donated_arguments(main: ir.OpView) -> set[int]:
    """Return the numbers of the state arguments that a result updates."""
    updated = set(_texts(main, "res_attrs", "pai.updates"))
    names = _texts(main, "arg_attrs", "pai.name")
    roles = _texts(main, "arg_attrs", "pai.role")
    return {
        i
        for i, (name, role) in enumerate(zip(names, roles, strict=True))
        if role == "state" and name in updated
    }


def _texts(main: ir.OpView, which: str, key: str) -> list[str]:
    """Return a text attribute of each argument or result, "" where there is none."""
    if which not in main.attributes:
        return []
    attributes = (ir.DictAttr(item) for item in ir.ArrayAttr(main.attributes[which]))
    return [ir.StringAttr(item[key]).value if key in item else "" for item in attributes]


def _place(storages: list[Storage]) -> tuple[list[Buffer], int]:
    arena = [s for s in storages if s.space == "arena"]
    offsets, total = assign_offsets([(s.first, s.last, s.size) for s in arena])
    offset = {s.number: o for s, o in zip(arena, offsets, strict=True)}
    return [Buffer(s.space, offset.get(s.number, s.index), s.size) for s in storages], total
