"""Every collective, element type and grouping of the in-process transport against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hand_made import Builder

from pai.runtime.dtypes import DTYPES
from pai.runtime.memory import canonical
from pai.runtime.program import Collective

OPS = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip
NARROW = {"i2": (2, True), "ui2": (2, False), "i4": (4, True), "ui4": (4, False)}
GROUPS = {1: ((0,),), 2: ((0, 1),), 4: ((2, 0), (1, 3)), 8: ((0, 3, 5, 6), (7, 4, 2, 1))}


def is_integer(name: str) -> bool:
    return name.startswith(("i", "ui"))


def draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    dtype = DTYPES[name]
    if name in NARROW or name in ("i1", "i8", "ui8"):
        bits, signed = NARROW.get(name, (1 if name == "i1" else 8, name == "i8"))
        low = -(1 << (bits - 1)) if signed else 0
        return rng.integers(low, low + (1 << bits), shape).astype(dtype)
    if is_integer(name):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    if name.startswith("complex"):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    if name == "f8E8M0FNU":
        return np.exp2(rng.integers(-3, 4, shape)).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def reduce(op: str, name: str, parts: list[np.ndarray]) -> np.ndarray:
    """Reduce from left to right as the runtime promises to."""
    dtype = DTYPES[name]
    wide = dtype
    if name == "i1":
        boolean = {"add": np.logical_or, "mul": np.logical_and, "max": np.logical_or,
                   "min": np.logical_and}  # fmt: skip
        function = boolean.get(op, OPS[op])
    else:
        function = OPS[op]
        if name in NARROW:
            wide = np.dtype(np.int64)
        elif not is_integer(name) and dtype.itemsize < 4:
            wide = np.dtype(np.float32)
    with np.errstate(all="ignore"):
        total = parts[0].astype(wide)
        for part in parts[1:]:
            total = function(total, part.astype(wide)).astype(wide)
        if name in NARROW:
            bits, signed = NARROW[name]
            total &= (1 << bits) - 1
            if signed:
                total -= (total >> (bits - 1)) << bits
        return total.astype(dtype)


def run(
    tmp_path: Path, devices: int, kind: str, name: str, parts: list[np.ndarray],
    out_shape: tuple[int, ...], **fields: object,
) -> list[np.ndarray]:  # fmt: skip
    """Give each device its part; return what each device has afterwards."""
    build = Builder(devices=devices)
    local = parts[0].shape
    x = build.argument("x", name, (devices, *local), shard=0)
    y = build.result("y", name, (devices, *out_shape), shard=0)
    build.collective(kind, x, y, name, local, **fields)
    package = build.load(tmp_path / "a.pai", threads=2)
    return list(package.run(x=np.stack(parts))["y"])


def same(got: np.ndarray, want: np.ndarray) -> None:
    assert got.dtype == want.dtype
    want = canonical(want)
    if want.dtype.kind == "c":  # NumPy fuses multiplication and addition, which rounds otherwise
        np.testing.assert_allclose(got, want, rtol=8 * np.finfo(want.dtype).eps)
        return
    np.testing.assert_array_equal(
        np.ascontiguousarray(got).view(np.uint8), np.ascontiguousarray(want).view(np.uint8)
    )


def defined(op: str, name: str) -> bool:
    if op in ("and", "or", "xor"):
        return is_integer(name)
    return op in ("add", "mul") or not name.startswith("complex")


@pytest.mark.parametrize("name", DTYPES)
def test_reductions_of_every_type(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(1)
    devices, groups = 4, GROUPS[4]
    for op in OPS:
        if not defined(op, name):
            continue
        parts = [draw(rng, name, (4, 37)) for _ in range(devices)]
        got = run(tmp_path, devices, "all_reduce", name, parts, (4, 37),
                  groups=groups, reductions=(op,))  # fmt: skip
        for group in groups:
            want = reduce(op, name, [parts[d] for d in sorted(group)])
            for device in group:
                same(got[device], want)
        got = run(tmp_path, devices, "reduce_scatter", name, parts, (2, 37),
                  groups=groups, reductions=(op,), dims=(0,))  # fmt: skip
        for group in groups:
            want = reduce(op, name, [parts[d] for d in sorted(group)])
            for position, device in enumerate(group):
                same(got[device], want[position * 2 : position * 2 + 2])


@pytest.mark.parametrize("name", [n for n in DTYPES if not is_integer(n)])
def test_reductions_of_special_values(tmp_path: Path, name: str) -> None:
    """Infinities, NaN, overflow and subnormals round as ml_dtypes says."""
    bits = DTYPES[name].itemsize * 8
    rng = np.random.default_rng(2)
    raw = rng.integers(0, 256, (2, 512 * bits // 8), dtype=np.uint8)
    limit = {"f4E2M1FN": 16, "f6E2M3FN": 64, "f6E3M2FN": 64}.get(name)
    if limit:
        raw %= limit
    parts = list(raw.view(DTYPES[name]))
    got = run(tmp_path, 2, "all_reduce", name, parts, parts[0].shape, reductions=("add",))
    want = reduce("add", name, parts)
    wide = np.complex128 if name.startswith("complex") else np.float64
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got[0].astype(wide), want.astype(wide))
    same(got[0], got[1])


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("name", ["f32", "f64", "bf16", "f16"])
def test_extremes_keep_nans(tmp_path: Path, name: str, op: str) -> None:
    rows = [[1, np.nan, -np.inf, 2], [np.nan, 3, 0, -1], [0, 0, np.inf, 4]]
    parts = [np.array(row).astype(DTYPES[name]) for row in rows]
    got = run(tmp_path, 3, "all_reduce", name, parts, (4,), reductions=(op,))
    extreme = np.maximum if op == "max" else np.minimum
    want = extreme.reduce(np.array(rows))
    for device in range(3):
        np.testing.assert_array_equal(got[device].astype(np.float64), want)


@pytest.mark.parametrize("devices", GROUPS)
@pytest.mark.parametrize("name", ["f32", "bf16", "i1", "complex<f64>"])
def test_data_movement(tmp_path: Path, devices: int, name: str) -> None:
    rng = np.random.default_rng(devices)
    groups = GROUPS[devices]
    size = len(groups[0])
    local = (size, 3, 2 * size)
    parts = [draw(rng, name, local) for _ in range(devices)]
    for dim in range(3):
        shape = tuple(n * size if i == dim else n for i, n in enumerate(local))
        got = run(tmp_path, devices, "all_gather", name, parts, shape, groups=groups, dims=(dim,))
        for group in groups:
            want = np.concatenate([parts[d] for d in group], dim)
            for device in group:
                same(got[device], want)
    for split, concat in ((0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)):
        pieces = {d: np.split(parts[d], size, split) for d in range(devices)}
        shape = list(local)
        shape[split] //= size
        shape[concat] *= size
        got = run(tmp_path, devices, "all_to_all", name, parts, tuple(shape),
                  groups=groups, dims=(split, concat))  # fmt: skip
        for group in groups:
            for position, device in enumerate(group):
                same(got[device], np.concatenate([pieces[d][position] for d in group], concat))
    got = run(tmp_path, devices, "collective_broadcast", name, parts, local, groups=groups)
    for group in groups:
        for device in group:
            same(got[device], parts[group[0]])


def test_permute_gives_zeros_to_who_receives_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [draw(rng, "f32", (5,)) for _ in range(6)]
    pairs = ((0, 1), (1, 2), (2, 0), (3, 3), (4, 5))
    got = run(tmp_path, 6, "collective_permute", "f32", parts, (5,), pairs=pairs)
    source = {receiver: sender for sender, receiver in pairs}
    for device in range(6):
        want = parts[source[device]] if device in source else np.zeros(5, np.float32)
        same(got[device], want)


def test_large_reductions_are_shared_and_repeat_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    build = Builder(devices=8)
    x = build.argument("x", "f32", (8, 300_001), shard=0)
    y = build.result("y", "f32", (8, 300_001), shard=0)
    build.collective("all_reduce", x, y, "f32", (1, 300_001), reductions=("add",))
    build.write(tmp_path / "a.pai")
    data = rng.standard_normal((8, 300_001), np.float32) * 1e3
    want = data[0].copy()
    for row in data[1:]:
        want += row
    for threads in (1, 2, 5):
        package = build.load(tmp_path / "a.pai", threads=threads)
        for _ in range(3):
            for row in package.run(x=data)["y"]:
                same(row, want)


def test_several_operands_of_different_types(tmp_path: Path) -> None:
    build = Builder(devices=2)
    a = build.argument("a", "f32", (2, 3), shard=0)
    b = build.argument("b", "i64", (2, 2), shard=0)
    ra = build.result("ra", "f32", (2, 3), shard=0)
    rb = build.result("rb", "i64", (2, 2), shard=0)
    build.code.append(
        Collective(
            "all_reduce",
            (a, b),
            (ra, rb),
            ("f32", "i64"),
            ((1, 3), (1, 2)),
            groups=((0, 1),),
            reductions=("add", "max"),
        )
    )
    package = build.load(tmp_path / "a.pai")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    z = np.array([[5, -7], [-1, 2]])
    got = package.run(a=x, b=z)
    np.testing.assert_array_equal(got["ra"], np.tile(x.sum(0), (2, 1)))
    np.testing.assert_array_equal(got["rb"], [[5, 2], [5, 2]])


@pytest.mark.parametrize("devices", [1, 3, 16, 64])
def test_many_devices_on_few_threads(tmp_path: Path, devices: int) -> None:
    build = Builder(devices=devices)
    x = build.argument("x", "i32", (devices,), shard=0)
    y = build.result("y", "i32", (devices,), shard=0)
    t = build.temporary(4)
    ring = tuple((d, (d + 1) % devices) for d in range(devices))
    build.collective("collective_permute", x, t, "i32", (1,), pairs=ring)
    for source, target in ((t, y), (y, t)) * 10:
        build.collective("collective_permute", source, target, "i32", (1,), pairs=ring)
    build.collective("collective_permute", t, y, "i32", (1,), pairs=ring)
    package = build.load(tmp_path / "a.pai", threads=2)
    data = np.arange(devices, dtype=np.int32)
    for _ in range(5):
        np.testing.assert_array_equal(package.run(x=data)["y"], np.roll(data, 22))
