"""compile_kernels: the same bytes whatever the jobs and the cache, and failures with names."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pai.compiler.codegen.cpu import compile as compiling
from pai.compiler.codegen.cpu.compile import compile_kernels, default_cache_dir
from pai.compiler.codegen.cpu.emit import KernelSource
from pai.compiler.codegen.cpu.target import parse_target
from pai.dialects.mlir import parse
from pai.passes.base import run_passes
from pai.passes.fuse import fuse
from pai.runtime.errors import PassFailure

TARGET = parse_target("cpu:x86-64-v3")


def fused():
    def function(x):
        return jnp.sin(x).sum(), jnp.exp(x.T) * 2, jnp.cumsum(x, 0)

    module = parse(jax.jit(function).lower(np.ones((4, 5), np.float32)).as_text())
    run_passes(module, "pai-inline")
    fuse(module)
    return module


def test_bytes_depend_neither_on_jobs_nor_on_the_cache(tmp_path, monkeypatch):
    one = compile_kernels(fused(), TARGET, jobs=1, use_cache=False)
    two = compile_kernels(fused(), TARGET, jobs=2, cache_dir=tmp_path)
    assert one == two
    assert len(one) >= 3
    for name, kernel in one.items():
        assert kernel.name == name
        assert kernel.symbol.encode() in kernel.object
        assert kernel.grid >= 1

    def refuse(*_):
        raise AssertionError("a worker was started although everything is cached")

    monkeypatch.setattr(compiling, "Worker", refuse)
    assert compile_kernels(fused(), TARGET, cache_dir=tmp_path) == one
    with pytest.raises(AssertionError, match="worker was started"):
        compile_kernels(fused(), parse_target("cpu:x86-64-v4"), cache_dir=tmp_path)


def test_damaged_cache_entries_are_made_again(tmp_path):
    good = compile_kernels(fused(), TARGET, cache_dir=tmp_path)
    for path in tmp_path.glob("*/*.o"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert compile_kernels(fused(), TARGET, cache_dir=tmp_path) == good
    assert not list(tmp_path.glob("*/.*"))


def test_cache_that_cannot_be_written_does_not_matter(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert compile_kernels(fused(), TARGET, cache_dir=blocked)


def test_cache_folder_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "pai-compile" / "kernels"


def test_a_bad_kernel_is_named_and_no_worker_is_left(tmp_path, monkeypatch):
    real = compiling.emit_kernel

    def emit(func, target):
        source = real(func, target)
        if "reduce" in str(func.attributes["pai.kernel"]):
            return KernelSource("no module at all", source.symbol, 1, 0)
        return source

    monkeypatch.setattr(compiling, "emit_kernel", emit)
    before = threading.active_count()
    with pytest.raises(PassFailure, match=r"kernel kernel_reduce\w*_0: cannot lower"):
        compile_kernels(fused(), TARGET, cache_dir=tmp_path)
    assert threading.active_count() == before
