"""Packages made by hand for the runtime's tests: kernels in C, no compiler stage before them."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pai.compiler.package import write_package
from pai.dialects.mlir import context, ir
from pai.dialects.program import Program, Role, Signature, Value, Weights
from pai.passes.partition import LocalModule
from pai.runtime.dtypes import itemsize
from pai.runtime.executor import LoadedPackage, load
from pai.runtime.mesh import AxisRef, Mesh, Sharding
from pai.runtime.program import Buffer, Call, Collective, Constant, Instruction, ProgramCode

SIGNATURE = "(void** b, int64_t begin, int64_t end, void* scratch)"
HEAD = "#include <math.h>\n#include <stdint.h>\n#include <string.h>\n#include <unistd.h>\n"


@dataclass(frozen=True)
class Target:
    arch: str = "x86_64"
    level: str = "x86-64-v2"
    features: tuple[str, ...] = ("sse2",)


@dataclass(frozen=True)
class CompiledKernel:
    name: str
    key: str
    object: bytes
    symbol: str
    grid: int
    scratch_bytes: int


@cache
def compile_c(source: str, *flags: str) -> bytes:
    """Return the object of a C source."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernel.o"
        command = ["gcc", "-O2", "-fPIC", *flags, "-xc", "-c", "-", "-o", str(out)]
        subprocess.run(command, check=True, input=(HEAD + source).encode())
        return out.read_bytes()


def kernel(name: str, body: str, grid: int = 1, scratch: int = 0) -> CompiledKernel:
    """Return a kernel whose C body may use ``b`` (buffers), ``begin``, ``end`` and ``scratch``."""
    source = f"void k_{name}{SIGNATURE} {{ {body} }}"
    data = compile_c(source)
    return CompiledKernel(name, f"key_{name}", data, f"k_{name}", grid, scratch)


@dataclass
class Builder:
    """Collects buffers and instructions, then writes and loads the package."""

    devices: int = 1
    buffers: list[Buffer] = field(default_factory=list)
    arguments: list[Value] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    shardings: dict[str, Sharding] = field(default_factory=dict)
    argument_buffers: list[int] = field(default_factory=list)
    result_buffers: list[int] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    code: list[Instruction] = field(default_factory=list)
    kernels: dict[str, CompiledKernel] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    arena: int = 0
    target: Target = Target()

    @property
    def mesh(self) -> Mesh:
        return Mesh((("x", self.devices),))

    def sharded(self, rank: int, dim: int = 0) -> Sharding:
        dims: list[tuple[AxisRef, ...]] = [()] * rank
        dims[dim] = (AxisRef("x"),)
        return Sharding(tuple(dims))

    def _add(self, space: str, offset: int, size: int) -> int:
        self.buffers.append(Buffer(space, offset, size))
        return len(self.buffers) - 1

    def _local_bytes(self, dtype: str, shape: tuple[int, ...], sharding: Sharding) -> int:
        return itemsize(dtype) * int(np.prod(sharding.local_shape(shape, self.mesh)))

    def argument(
        self, name: str, dtype: str, shape: tuple[int, ...], shard: int | None = None,
        role: Role = Role.INPUT,
    ) -> int:  # fmt: skip
        sharding = Sharding.replicated(len(shape)) if shard is None else self.sharded(
            len(shape), shard
        )  # fmt: skip
        self.shardings[f"in {name}"] = sharding
        self.arguments.append(Value(name, role, dtype, shape))
        size = self._local_bytes(dtype, shape, sharding)
        self.argument_buffers.append(self._add("argument", len(self.argument_buffers), size))
        return self.argument_buffers[-1]

    def result(
        self, name: str, dtype: str, shape: tuple[int, ...], shard: int | None = None,
        buffer: int | None = None, updates: str = "",
    ) -> int:  # fmt: skip
        sharding = Sharding.replicated(len(shape)) if shard is None else self.sharded(
            len(shape), shard
        )  # fmt: skip
        self.shardings[f"out {name}"] = sharding
        self.results.append(Value(name, Role.OUTPUT, dtype, shape, updates))
        if buffer is None:
            size = self._local_bytes(dtype, shape, sharding)
            buffer = self._add("result", len(self.result_buffers), size)
        self.result_buffers.append(buffer)
        return buffer

    def temporary(self, size: int) -> int:
        number = self._add("arena", self.arena, size)
        self.arena += -(-size // 64) * 64
        return number

    def device(self) -> int:
        return self._add("device", 0, 4)

    def constant(self, name: str, dtype: str, value: np.ndarray) -> int:
        self.constants.append(Constant(name, dtype, value.shape, value))
        return self._add("constant", len(self.constants) - 1, value.nbytes)

    def collective(self, kind: str, source: int, target: int, dtype: str,
                   shape: tuple[int, ...], **fields: Any) -> None:  # fmt: skip
        fields.setdefault("groups", (tuple(range(self.devices)),))
        if kind == "collective_permute":
            del fields["groups"]
        self.code.append(Collective(kind, (source,), (target,), (dtype,), (shape,), **fields))

    def program_code(self) -> ProgramCode:
        return ProgramCode(
            tuple(self.buffers), tuple(self.argument_buffers), tuple(self.result_buffers),
            tuple(self.constants), self.arena, tuple(self.code),
        )  # fmt: skip

    def write(self, out: Path, **options: Any) -> Path:
        with context() as ctx, ir.Location.unknown(ctx):
            module = ir.Module.create()
        loaders = {name: (lambda array=array: array) for name, array in self.weights.items()}
        signature = Signature(tuple(self.arguments), tuple(self.results))
        program = Program("hand-made", module, signature, Weights(loaders))
        local = LocalModule(
            module, self.mesh,
            tuple(self.shardings[f"in {v.name}"] for v in self.arguments),
            tuple(self.shardings[f"out {v.name}"] for v in self.results),
        )  # fmt: skip
        write_package(
            out, program, local, self.program_code(), self.kernels, self.target, "", {}, **options
        )
        return out

    def call(self, kernel: CompiledKernel, *buffers: int) -> Call:
        self.kernels[kernel.name] = kernel
        return Call(kernel.name, buffers)

    def load(self, out: Path, **options: Any) -> LoadedPackage:
        return load(self.write(out), **options)
