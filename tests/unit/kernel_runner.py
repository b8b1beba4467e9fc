"""Compile the kernels of a fused module and call them through the runtime's loader."""

import ctypes
import itertools

import numpy as np

from pai.compiler.codegen.cpu.compile import CompiledKernel
from pai.compiler.codegen.cpu.emit import emit_kernel
from pai.compiler.codegen.cpu.toolchain import compile_text
from pai.runtime import _core


def aligned(size):
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def compile_here(module, target):
    """Compile the kernels of a module in this process, by name (quicker for a few)."""
    kernels = {}
    for function in module.body.operations:
        if "pai.kernel" in function.attributes:
            name, key = function.name.value, function.attributes["pai.key"].value
            source = emit_kernel(function, target)
            data = compile_text(source.text, target, name)
            kernels[name] = CompiledKernel(
                name, key, data, source.symbol, source.grid, source.scratch_bytes
            )
    return kernels


class LoadedKernel:
    """One kernel, called with arrays."""

    def __init__(self, kernel: CompiledKernel) -> None:
        self.kernel = kernel
        self.image = _core.load_image([(kernel.name, kernel.object)])
        address = self.image.symbol(0, kernel.symbol)
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self.entry = ctypes.CFUNCTYPE(None, pointer, number, number, pointer)(address)
        self.scratch = aligned(max(64, kernel.scratch_bytes))

    def __call__(self, operands, results, parts=1):
        """Fill ``results``; the grid is run in ``parts`` pieces, last piece first."""
        arrays = [*operands, *results]
        buffers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
        edges = np.linspace(0, self.kernel.grid, parts + 1).astype(int).tolist()
        for begin, end in reversed(list(itertools.pairwise(edges))):
            self.entry(ctypes.addressof(buffers), begin, end, self.scratch.ctypes.data)
