"""Every kernel function of a fused module to an object, in parallel and with a cache on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from pai.compiler.codegen.cpu import conv, dot  # noqa: F401  (they register their emitters)
from pai.compiler.codegen.cpu.emit import KernelSource, emit_kernel
from pai.compiler.codegen.cpu.target import CpuTarget
from pai.compiler.codegen.cpu.toolchain import version
from pai.compiler.codegen.cpu.worker import Worker
from pai.dialects.mlir import ir
from pai.runtime.errors import PassFailure
from pai.runtime.version import VERSION

TIME_LIMIT = 300.0  # seconds one kernel may take in LLVM
_DIGEST = 32  # bytes of SHA-256 before each object in the cache


@dataclass(frozen=True)
class CompiledKernel:
    """One kernel, ready to be packed.

    Args:
        name: the function's name in the module.
        key: its structural hash (``pai.key``).
        object: ELF relocatable for x86-64.
        symbol: entry point in the object.
        grid: number of independent parts.
        scratch_bytes: private memory each thread needs.
    """

    name: str
    key: str
    object: bytes
    symbol: str
    grid: int
    scratch_bytes: int


def default_cache_dir() -> Path:
    """Return the folder of compiled kernels: ``$XDG_CACHE_HOME`` or ``~/.cache``, pai-compile."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pai-compile" / "kernels"


def compile_kernels(
    module: ir.Module,
    target: CpuTarget,
    jobs: int = 2,
    cache_dir: Path | None = None,
    use_cache: bool = True,
    time_limit: float = TIME_LIMIT,
) -> dict[str, CompiledKernel]:
    """Compile every function of ``module`` that has ``pai.kernel``.

    The same kernel gives the same bytes, whatever ``jobs``, the cache and the other kernels are:
    each is compiled alone (measured: about 8 ms of overhead a kernel, which batching into one
    LLVM module does not lower).

    Args:
        module: a module as the fuse stage leaves it.
        target: the processor to make code for.
        jobs: number of worker processes.
        cache_dir: folder of the cache; None takes ``default_cache_dir()``.
        use_cache: False neither reads nor writes the cache.
        time_limit: seconds one kernel may take in LLVM.

    Returns:
        Kernels by function name, in the module's order.

    Raises:
        UnsupportedOp: no emitter covers an operation of a kernel.
        PassFailure: LLVM refuses a kernel or dies on it; names the kernel and its dumped text.
    """
    cache = (cache_dir or default_cache_dir()) if use_cache else None
    sources: dict[str, tuple[str, KernelSource]] = {}
    for op in module.body.operations:
        if "pai.kernel" in op.attributes:
            name = ir.StringAttr(op.attributes["sym_name"]).value
            key = ir.StringAttr(op.attributes["pai.key"]).value
            sources[name] = (key, emit_kernel(op, target))
    objects = _compile_all(
        {n: s.text for n, (_, s) in sources.items()}, target, jobs, cache, time_limit
    )
    return {
        name: CompiledKernel(
            name, key, objects[name], source.symbol, source.grid, source.scratch_bytes
        )
        for name, (key, source) in sources.items()
    }


def _compile_all(
    texts: Mapping[str, str], target: CpuTarget, jobs: int, cache: Path | None, time_limit: float
) -> dict[str, bytes]:
    keys = {name: _cache_key(text, target) for name, text in texts.items()}
    objects: dict[str, bytes] = {}
    for name in texts:
        found = _load(cache, keys[name])
        if found is not None:
            objects[name] = found
    todo = sorted((name for name in texts if name not in objects), key=lambda n: -len(texts[n]))
    if not todo:
        return objects
    with _workers(min(jobs, len(todo)), time_limit) as pool:

        def compile_one(name: str) -> bytes:
            with pool.borrow() as worker:
                data = worker.compile(texts[name], target, name)
            _store(cache, keys[name], data)
            return data

        threads = ThreadPoolExecutor(min(jobs, len(todo)))
        try:
            objects.update(zip(todo, threads.map(compile_one, todo), strict=True))
        finally:
            pool.stop()
            threads.shutdown(cancel_futures=True)
    return objects


class _Pool:
    """Workers that are started when first needed and replaced when they die."""

    def __init__(self, count: int, time_limit: float) -> None:
        self._time_limit = time_limit
        self._idle: SimpleQueue[Worker | None] = SimpleQueue()
        self._all: list[Worker] = []
        self._lock = threading.Lock()
        self._stopped = False
        for _ in range(count):
            self._idle.put(None)

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Worker]:
        worker = self._idle.get()
        healthy = False
        try:
            if worker is None:
                worker = self._start()
            yield worker
            healthy = True
        finally:
            self._idle.put(worker if healthy else None)

    def _start(self) -> Worker:
        with self._lock:
            if self._stopped:
                raise PassFailure("was cancelled", "the compiler's worker processes")
            worker = Worker(self._time_limit)
            self._all.append(worker)
            return worker

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for worker in self._all:
                worker.close()
            self._all.clear()


@contextlib.contextmanager
def _workers(count: int, time_limit: float) -> Iterator[_Pool]:
    pool = _Pool(count, time_limit)
    try:
        yield pool
    finally:
        pool.stop()


def _cache_key(text: str, target: CpuTarget) -> str:
    parts = "\0".join((VERSION, version(), target.key, text))
    return hashlib.sha256(parts.encode()).hexdigest()


def _load(cache: Path | None, key: str) -> bytes | None:
    """Return the cached object; None when there is none or the file is damaged."""
    if cache is None:
        return None
    try:
        data = (cache / key[:2] / f"{key}.o").read_bytes()
    except OSError:
        return None
    digest, content = data[:_DIGEST], data[_DIGEST:]
    return content if hashlib.sha256(content).digest() == digest else None


def _store(cache: Path | None, key: str, content: bytes) -> None:
    """Write the object under its final name in one step; a cache that cannot be written is none."""
    if cache is None:
        return
    folder = cache / key[:2]
    temporary = folder / f".{key}.{os.getpid()}.{threading.get_ident()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(hashlib.sha256(content).digest() + content)
        temporary.replace(folder / f"{key}.o")
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
