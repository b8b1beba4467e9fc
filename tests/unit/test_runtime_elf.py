"""The object loader: what it links, and that damaged objects are errors and never crashes."""

from __future__ import annotations

import ctypes
import os
import struct
import traceback
from pathlib import Path

import numpy as np
import pytest
from hand_made import SIGNATURE, compile_c

from pai.runtime import _core

VARIED = f"""
static const double table[4] = {{1.5, 2.5, 3.5, 4.5}};
static int counter = 40;
static int zeroed[1000];
static double pick(int i) {{ return table[i & 3]; }}
double (*chosen)(int) = pick;
const char* words[2] = {{"ab", "cde"}};
void entry{SIGNATURE} {{
  double* out = b[0];
  zeroed[999] += 1;
  out[0] = chosen(2) + expf(0.0f) + ++counter + zeroed[999];
  out[1] = (double)strlen(words[1]);
  memcpy(out + 2, table, 16);
  switch (begin) {{
    case 0: out[4] = 10; break; case 1: out[4] = 7; break; case 2: out[4] = -3; break;
    case 3: out[4] = 99; break; case 4: out[4] = 98; break; case 5: out[4] = sin(1.0); break;
    default: out[4] = 0;
  }}
}}
"""


def call(image: _core.Image, begin: int = 0, number: int = 0) -> np.ndarray:
    out = np.zeros(8)
    buffers = (ctypes.c_void_p * 1)(out.ctypes.data)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    kind(image.symbol(number, "entry"))(buffers, begin, 1, None)
    return out


@pytest.mark.parametrize(
    "flags",
    [(), ("-O0",), ("-mcmodel=large",), ("-mcmodel=medium", "-fno-plt"), ("-fno-plt",)],
    ids=" ".join,
)
def test_links_what_compilers_emit(flags: tuple[str, ...]) -> None:
    image = _core.load_image([("a.o", compile_c(VARIED, *flags))])
    np.testing.assert_allclose(call(image)[:5], [3.5 + 1 + 41 + 1, 3, 1.5, 2.5, 10])
    np.testing.assert_allclose(call(image, 5)[:5], [3.5 + 1 + 42 + 2, 3, 1.5, 2.5, np.sin(1.0)])


def test_objects_with_the_same_symbol_stay_apart() -> None:
    first = compile_c(f"void entry{SIGNATURE} {{ ((double*)b[0])[0] = 1; }}")
    second = compile_c(f"void entry{SIGNATURE} {{ ((double*)b[0])[0] = 2; }}")
    image = _core.load_image([("a.o", first), ("b.o", second)])
    assert [call(image, number=n)[0] for n in (0, 1)] == [1, 2]


def test_objects_see_each_other() -> None:
    user = compile_c(f"double other(void); void entry{SIGNATURE} {{ *(double*)b[0] = other(); }}")
    maker = compile_c("double other(void) { return 5; }")
    assert call(_core.load_image([("a.o", user), ("b.o", maker)]))[0] == 5


@pytest.mark.parametrize(
    ("source", "flags", "message"),
    [
        ("void f(void); void entry(void) { f(); }", (), "undefined symbol 'f'"),
        ("int x; int* entry(void) { return &x; }", ("-fno-pic", "-mcmodel=kernel"), "position-ind"),
        ("__thread int x; int* entry(void) { return &x; }", (), "thread-local"),
        (
            "static void f(void) {} __attribute__((section(\".init_array\"))) void* p = f;", (),
            "cannot be loaded",
        ),
    ],
)  # fmt: skip
def test_refuses_what_it_cannot_link(source: str, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(_core.CorePackageError, match=message):
        _core.load_image([("a.o", compile_c(source, *flags))])


@pytest.mark.parametrize(("offset", "message"), [(0, "not an ELF"), (16, "not reloc"), (18, "x86")])
def test_refuses_other_kinds_of_objects(offset: int, message: str) -> None:
    data = bytearray(compile_c("void entry(void) {}"))
    data[offset] = 3
    with pytest.raises(_core.CorePackageError, match=message):
        _core.load_image([("a.o", bytes(data))])


def test_no_memory_is_writable_and_executable() -> None:
    image = _core.load_image([("a.o", compile_c(VARIED))])
    address = image.symbol(0, "entry")
    with Path("/proc/self/maps").open() as maps:
        for line in maps:
            span, mode = line.split()[:2]
            begin, end = (int(part, 16) for part in span.split("-"))
            if begin <= address < end:
                assert mode.startswith("r-x")
                return
    raise AssertionError("the code is not mapped")


def test_truncated_objects_are_errors() -> None:
    data = compile_c(VARIED)
    for size in {*range(0, 200, 7), *range(0, len(data), 97), len(data) - 1}:
        with pytest.raises(_core.CorePackageError):
            _core.load_image([("a.o", data[:size])])


def test_damaged_objects_never_crash() -> None:
    """Random bytes are changed, most in the tables; the loader refuses or loads, in a child."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            damage(compile_c(VARIED))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def damage(data: bytes) -> None:
    rng = np.random.default_rng(0)
    (headers,) = struct.unpack_from("<Q", data, 40)
    refused = 0
    for turn in range(6000):
        broken = bytearray(data)
        low = (0, headers, 0)[turn % 3]
        high = (64, len(data), len(data))[turn % 3]
        for at in rng.integers(low, high, rng.integers(1, 4)):
            broken[at] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
        try:
            _core.load_image([("a.o", bytes(broken))])
        except _core.CorePackageError:
            refused += 1
    assert refused > 300
