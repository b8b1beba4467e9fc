"""Quantized types with unsigned storage, written with signed storage and a moved zero point."""

from __future__ import annotations

import re

from pai.dialects.mlir import ir
from pai.passes.rewrite import walk, where
from pai.runtime.errors import UnsupportedOp

_TYPE = re.compile(
    r"!quant\.uniform<u(?P<bits>\d+)(?:<(?P<low>\d+):(?P<high>\d+)>)?:(?P<rest>\w+(?::\d+)?), "
    r"(?P<scales>[^<>]*)>"
)
_PAIR = re.compile(r"(?P<scale>[-+\w.]+)(?::(?P<zero>-?\d+))?")
_RAW = {"stablehlo.constant", "stablehlo.bitcast_convert"}


def use_signed_storage(module: ir.Module) -> None:
    """Move the storage of ``u8`` (any width) down by half its range, in place.

    ``!quant.uniform<u8:f32, s:z>`` and ``!quant.uniform<i8:f32, s:z - 128>`` hold the same real
    values. StableHLO's legalization reads every storage type as signed.

    Raises:
        UnsupportedOp: where the stored bits themselves are used.
    """
    operations = list(walk(module.operation))
    for op in operations:
        for value in (*op.operands, *op.results):
            if op.name in _RAW and _TYPE.search(str(value.type)):
                raise UnsupportedOp(
                    f"the stored bits of {value.type} are not available",
                    where(op),
                    "use signed storage, or quantize from real values",
                )
    for op in operations:
        for result in op.results:
            _move(result)
        for region in op.regions:
            for block in region.blocks:
                for argument in block.arguments:
                    _move(argument)


def _move(value: ir.Value) -> None:
    text = str(value.type)
    if _TYPE.search(text):
        value.set_type(ir.Type.parse(_TYPE.sub(_signed, text), value.context))


def _signed(match: re.Match[str]) -> str:
    half = 1 << (int(match["bits"]) - 1)
    limits = f"<{int(match['low']) - half}:{int(match['high']) - half}>" if match["low"] else ""
    pairs = [
        f"{pair['scale']}:{int(pair['zero'] or 0) - half}"
        for pair in _PAIR.finditer(match["scales"])
    ]
    scales = f"{{{', '.join(pairs)}}}" if match["scales"].startswith("{") else pairs[0]
    return f"!quant.uniform<i{match['bits']}{limits}:{match['rest']}, {scales}>"
