"""Kernel text to objects: levels are kept to, bytes repeat, and failures have names."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pai.compiler.codegen.cpu.target import level_features, parse_target
from pai.compiler.codegen.cpu.toolchain import compile_text
from pai.compiler.codegen.cpu.worker import Worker
from pai.runtime.cpu import host_features, missing_features
from pai.runtime.errors import PaiError, PassFailure

TEXT = """
func.func @foo(%buffers: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr) {
  %one = arith.constant 1 : i64
  %lanes = arith.constant 16 : i64
  %slot = llvm.getelementptr %buffers[1] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
  %in = llvm.load %buffers : !llvm.ptr -> !llvm.ptr
  %out = llvm.load %slot : !llvm.ptr -> !llvm.ptr
  %factor = arith.constant dense<2.5> : vector<16xf32>
  scf.for %i = %begin to %end step %one : i64 {
    %at = arith.muli %i, %lanes : i64
    %p = llvm.getelementptr %in[%at] : (!llvm.ptr, i64) -> !llvm.ptr, f32
    %q = llvm.getelementptr %out[%at] : (!llvm.ptr, i64) -> !llvm.ptr, f32
    %x = llvm.load %p {alignment = 4 : i64} : !llvm.ptr -> vector<16xf32>
    %y = arith.mulf %x, %factor : vector<16xf32>
    %z = math.exp %y : vector<16xf32>
    llvm.store %z, %q {alignment = 4 : i64} : vector<16xf32>, !llvm.ptr
  }
  return
}
"""
# An instruction that the level lacks: LLVM ends the process ("Cannot select").
ABORTING = TEXT.replace(
    "%z = math.exp %y : vector<16xf32>",
    """%mask = arith.constant -1 : i16
    %z = llvm.call_intrinsic "llvm.x86.avx512.rcp14.ps.512"(%y, %y, %mask)
        : (vector<16xf32>, vector<16xf32>, i16) -> vector<16xf32>""",
)


def disassemble(data, tmp_path):
    tool = shutil.which("objdump") or shutil.which("llvm-objdump")
    if tool is None:
        pytest.skip("no objdump")
    path = tmp_path / "k.o"
    path.write_bytes(data)
    return subprocess.run([tool, "-dr", path], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("level", "there", "absent"),
    [
        ("x86-64-v2", "xmm", "ymm|zmm|vmul|%k[0-7]"),
        ("x86-64-v3", "ymm", "zmm|%k[0-7]|[xy]mm(1[6-9]|2[0-9]|3[01])"),
        ("x86-64-v4", "zmm", "nothing that is not there"),
    ],
)
def test_code_keeps_to_its_level(level, there, absent, tmp_path):
    text = disassemble(compile_text(TEXT, parse_target(f"cpu:{level}")), tmp_path)
    assert there in text
    assert not re.search(absent, text)


def test_relocations_are_those_documented(tmp_path):
    text = disassemble(compile_text(TEXT, parse_target("cpu:x86-64-v3")), tmp_path)
    kinds = set(re.findall(r"R_X86_64_\w+", text))
    assert kinds == {"R_X86_64_GOTPC64", "R_X86_64_GOTOFF64", "R_X86_64_GOT64"}


def test_bytes_repeat_in_and_across_processes():
    target = parse_target("cpu:x86-64-v4")
    worker = Worker(60)
    try:
        other = worker.compile(TEXT, target, "foo")
        assert worker.compile(TEXT, target, "foo") == other == compile_text(TEXT, target)
    finally:
        worker.close()


def test_bad_text_names_the_kernel_and_the_worker_survives():
    worker = Worker(60)
    target = parse_target("cpu:x86-64-v3")
    try:
        with pytest.raises(PassFailure, match="kernel broken: cannot lower"):
            worker.compile("func.func @x() { nonsense }", target, "broken")
        assert worker.compile(TEXT, target, "foo").startswith(b"\x7fELF")
    finally:
        worker.close()


def test_a_crash_in_llvm_names_the_kernel_and_its_text():
    worker = Worker(60)
    try:
        with pytest.raises(PassFailure, match="kernel bad: ") as caught:
            worker.compile(ABORTING, parse_target("cpu:x86-64-v2"), "bad")
        path = Path(re.search(r"its text is in (\S+)", str(caught.value))[1])
        assert path.read_text() == ABORTING
        path.unlink()
    finally:
        worker.close()


def test_time_limit():
    worker = Worker(0.01)
    try:
        with pytest.raises(PassFailure, match=r"kernel foo: took more than 0.01 s") as caught:
            worker.compile(TEXT, parse_target("cpu:x86-64-v3"), "foo")
        Path(re.search(r"its text is in (\S+)", str(caught.value))[1]).unlink()
    finally:
        worker.close()


def test_targets():
    assert parse_target("cpu:x86-64-v3").vector_bits == 256
    assert set(level_features("x86-64-v3")) < set(level_features("x86-64-v4"))
    assert parse_target("cpu").level == parse_target("cpu:host").level
    assert not missing_features(parse_target("cpu:host").features)
    assert "sse2" in host_features()
    assert missing_features(["sse2", "quantum"]) == ["quantum"]
    for text in ("cpu:", "gpu", "cpu:v3", ""):
        with pytest.raises(PaiError, match="no such target"):
            parse_target(text)
