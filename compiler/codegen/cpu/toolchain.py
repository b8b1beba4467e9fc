"""MLIR text to an ELF object, with torch-mlir's LLVM; no compiler or linker of the system.

The text holds ``func.func @symbol(!llvm.ptr, i64, i64, !llvm.ptr)`` and perhaps helpers, in the
dialects arith, math, scf, cf, vector, memref, index, func and llvm.

What the object looks like (LLVM's execution engine uses the large code model, PIC):

- sections to load: ``.ltext`` (code), ``.lrodata*`` (constants; mergeable), rarely
  ``.ldata.rel.ro`` and ``.lbss``; the plain names (``.text``, ``.rodata*``) may occur, empty;
- relocations: R_X86_64_GOTPC64 (29, against ``_GLOBAL_OFFSET_TABLE_``), R_X86_64_GOTOFF64 (25,
  constants and own functions), R_X86_64_GOT64 (27, external functions: an offset in the table),
  and PC32, PLT32, PC64, 64 in principle;
- symbols: each function and a wrapper ``_mlir_...`` of it (never called) are global, because the
  engine looks them up by name, so helpers need names of their own; undefined are only libm and libc
  functions and ``pai_*``.

The engine generates code for the machine it runs on, so every function names its own processor
and features: the same bytes come out wherever this runs.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import tempfile
from pathlib import Path
from typing import Any

from torch_mlir import _mlir_libs, ir, passmanager

from pai.compiler.codegen.cpu.target import CpuTarget
from pai.runtime.errors import PassFailure

PIPELINE = (
    "canonicalize,cse,convert-vector-to-scf,convert-scf-to-cf,expand-strided-metadata,lower-affine,"
    "arith-expand{include-bf16=true},convert-complex-to-standard,convert-vector-to-llvm,"
    "convert-math-to-llvm,convert-math-to-libm,convert-complex-to-llvm,convert-arith-to-llvm,"
    "finalize-memref-to-llvm,convert-index-to-llvm,convert-ub-to-llvm,convert-func-to-llvm,"
    "convert-cf-to-llvm,canonicalize,cse,reconcile-unrealized-casts"
)
OPT_LEVEL = 3


class _Handle(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_void_p)]


class _StringRef(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("length", ctypes.c_size_t)]


def version() -> str:
    """Return what, besides the text and the target, decides the bytes of an object."""
    return f"torch-mlir {importlib.metadata.version('torch-mlir')} O{OPT_LEVEL} {PIPELINE}"


def compile_text(text: str, target: CpuTarget, name: str = "kernel") -> bytes:
    """Compile one kernel; LLVM may abort the process on bad input (see ``worker.py``).

    Args:
        text: an MLIR module as the head of this file says.
        target: the processor to make code for.
        name: the kernel's name, for messages.

    Returns:
        A PIC ELF relocatable object for x86-64.

    Raises:
        PassFailure: when the text does not parse, a pass fails, or LLVM refuses it.
    """
    context = ir.Context()
    with context, ir.Location.unknown(context):
        try:
            module = ir.Module.parse(text)
            manager = passmanager.PassManager.parse(f"builtin.module({PIPELINE})")
            manager.run(module.operation)
        except (ir.MLIRError, ValueError) as error:
            raise PassFailure(f"cannot lower to LLVM: {error}", f"kernel {name}") from error
        _set_processor(module, target)
        return _object_of(module, name)


def _set_processor(module: ir.Module, target: CpuTarget) -> None:
    """Name processor and features on every function, so that the host's do not count."""
    features = ", ".join(f'"+{feature}"' for feature in target.features)
    attributes = {
        "target_cpu": f'"{target.level}"',
        "tune_cpu": f'"{target.level}"',
        "target_features": f"#llvm.target_features<[{features}]>",
        "no_inline": "unit",
        "passthrough": '["nounwind", ["no-jump-tables", "true"], '
        f'["prefer-vector-width", "{target.vector_bits}"], ["min-legal-vector-width", "0"]]',
    }
    parsed = {key: ir.Attribute.parse(value) for key, value in attributes.items()}
    for op in module.body.operations:
        if op.operation.name != "llvm.func" or not op.regions[0].blocks:
            continue
        for key, value in parsed.items():
            op.attributes[key] = value


def _object_of(module: ir.Module, name: str) -> bytes:
    library = _library()
    handle = _Handle(_pointer(module._CAPIPtr))
    engine = library.mlirExecutionEngineCreate(handle, OPT_LEVEL, 0, None, True, True)
    if not engine.pointer:
        raise PassFailure("LLVM refused the module", f"kernel {name}")
    try:
        with tempfile.TemporaryDirectory(prefix="pai-") as folder:
            path = Path(folder) / "kernel.o"
            raw = os.fsencode(path)
            library.mlirExecutionEngineDumpToObjectFile(engine, _StringRef(raw, len(raw)))
            if not path.exists() or path.stat().st_size == 0:
                raise PassFailure("LLVM wrote no object", f"kernel {name}")
            return path.read_bytes()
    finally:
        library.mlirExecutionEngineDestroy(engine)


def _library() -> Any:
    """Return torch-mlir's C API, with the signatures of what is used here."""
    folder = Path(str(_mlir_libs.__file__)).parent
    library = ctypes.CDLL(str(folder / "libTorchMLIRAggregateCAPI.so"))
    library.mlirExecutionEngineCreate.restype = _Handle
    library.mlirExecutionEngineCreate.argtypes = [
        _Handle,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_bool,
        ctypes.c_bool,
    ]
    library.mlirExecutionEngineDumpToObjectFile.argtypes = [_Handle, _StringRef]
    library.mlirExecutionEngineDumpToObjectFile.restype = None
    library.mlirExecutionEngineDestroy.argtypes = [_Handle]
    library.mlirExecutionEngineDestroy.restype = None
    return library


def _pointer(capsule: object) -> int:
    """Return the address inside a Python capsule."""
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, get_name(capsule)))
