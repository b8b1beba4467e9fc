"""Compile one function as one CPU kernel and run it, without package or driver."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from pai.compiler.codegen.cpu.emit import KernelSource, emit_kernel
from pai.compiler.codegen.cpu.target import CpuTarget, parse_target
from pai.compiler.codegen.cpu.toolchain import compile_text
from pai.dialects.mlir import ir, parse
from pai.runtime import _core
from pai.runtime.dtypes import DTYPES

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_GUARD = 64  # bytes after every buffer that a kernel must leave alone


class Kernel:
    """A compiled function.

    Args:
        text: a module whose first function is the kernel.
        target: the processor; None takes this machine's level.
    """

    def __init__(self, text: str, target: CpuTarget | None = None) -> None:
        target = target or parse_target("cpu")
        module = parse(text)
        function = module.body.operations[0]
        self.source: KernelSource = emit_kernel(function, target)
        kind = ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value)
        self.results = [(tuple(r.shape), DTYPES[str(r.element_type)]) for r in kind.results]
        self._image = _core.load_image([("kernel.o", compile_text(self.source.text, target))])
        self._entry = _ENTRY(self._image.symbol(0, self.source.symbol))

    def run(self, inputs: Sequence[np.ndarray], reverse: bool = False) -> list[np.ndarray]:
        """Run all parts of the grid, one after the other.

        Args:
            inputs: one array per argument.
            reverse: run the parts last to first; the results must not depend on it.

        Returns:
            One array per result.

        Raises:
            RuntimeError: when the kernel wrote behind a buffer.
        """
        buffers = [_padded(x) for x in inputs] + [_padded(np.zeros(s, d)) for s, d in self.results]
        scratch = _padded(np.zeros(self.source.scratch_bytes, np.uint8))
        pointers = (ctypes.c_void_p * len(buffers))(*[b.ctypes.data for b in buffers])
        parts = range(self.source.grid)
        for part in reversed(parts) if reverse else parts:
            self._entry(pointers, part, part + 1, scratch.ctypes.data)
        for buffer in (*buffers, scratch):
            if (buffer[-_GUARD:] != 0xA5).any():
                raise RuntimeError("the kernel wrote behind a buffer")
        outputs = buffers[len(inputs) :]
        return [
            b[:-_GUARD].view(d).reshape(s) for b, (s, d) in zip(outputs, self.results, strict=True)
        ]


def _padded(x: np.ndarray) -> np.ndarray:
    """Return the bytes of ``x`` in 64-byte aligned memory with a guard behind them."""
    raw = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
    space = np.full(raw.size + _GUARD + 64, 0xA5, np.uint8)
    start = -space.ctypes.data % 64
    space[start : start + raw.size] = raw
    return space[start : start + raw.size + _GUARD]


def run_kernel(text: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Compile the first function of a module and run it."""
    return Kernel(text).run(inputs)
