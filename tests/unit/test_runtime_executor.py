"""Control flow, states, divided kernels, deadlines, interruption and traces of the executor."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hand_made import Builder, kernel

from pai.dialects.program import Role
from pai.runtime.errors import PackageError, TransportError
from pai.runtime.executor import load
from pai.runtime.program import Buffer, Case, Copy, Fill, While

LESS = kernel("less", "*(char*)b[2] = *(int*)b[0] < *(int*)b[1];")
INC = kernel("inc", "*(int*)b[1] = *(int*)b[0] + 1;")
DOUBLE = kernel("dbl", "*(int*)b[1] = *(int*)b[0] * 2;")
SLEEP = kernel(
    "sleepy", "if (*(int*)b[0] > 0) usleep(*(int*)b[0] * 1000); *(int*)b[1] = *(int*)b[0];"
)
GRID = kernel(
    "grid",
    """int* x = b[0]; int* y = b[1]; volatile int* mine = scratch;
    for (int64_t i = begin; i < end; i++) {
      mine[0] = 0;
      for (int k = 0; k < 20000; k++) mine[0] += 1;
      y[i] = x[i] + mine[0];
    }""",
    grid=64,
    scratch=4,
)


def counting(devices: int = 1) -> Builder:
    """Count from x to n; every device has its own x."""
    build = Builder(devices=devices)
    x = build.argument("x", "i32", (devices,), shard=0)
    n = build.argument("n", "i32", (devices,), shard=0)
    y = build.result("y", "i32", (devices,), shard=0)
    p, t = build.temporary(1), build.temporary(4)
    build.code += [
        Copy(x, y),
        While(p, (build.call(LESS, y, n, p),), (build.call(INC, y, t), Copy(t, y))),
    ]
    return build


def test_while_loops(tmp_path: Path) -> None:
    package = counting(3).load(tmp_path / "a")
    x, n = np.array([0, 5, 9], np.int32), np.array([7, 5, 1000], np.int32)
    np.testing.assert_array_equal(package.run(x=x, n=n)["y"], [7, 5, 1000])


@pytest.mark.parametrize(
    ("index", "branch"), [(0, 0), (1, 1), (2, 2), (3, 2), (-1, 2), (2**31 - 1, 2)]
)
def test_case_takes_the_last_branch_when_out_of_range(
    tmp_path: Path, index: int, branch: int
) -> None:
    build = Builder()
    i = build.argument("i", "i32", ())
    y = build.result("y", "i64", (3,))
    patterns = [np.array(k, np.int64).tobytes() for k in (10, 20, 30)]
    build.code.append(Case(i, tuple((Fill(y, pattern),) for pattern in patterns)))
    out = build.load(tmp_path / "a").run(i=np.array(index, np.int32))
    np.testing.assert_array_equal(out["y"], np.full(3, (branch + 1) * 10))


def test_loops_inside_cases_inside_loops(tmp_path: Path) -> None:
    """While y < n: if y < 8 then double it (twice if still below 8) else increment."""
    build = Builder()
    y0 = build.argument("x", "i32", ())
    n = build.argument("n", "i32", ())
    eight = build.constant("constant.0", "i32", np.array(8, np.int32))
    y = build.result("y", "i32", ())
    p, q, t = build.temporary(1), build.temporary(1), build.temporary(4)
    twice = (build.call(DOUBLE, y, t), Copy(t, y))
    once = (build.call(INC, y, t), Copy(t, y))
    again = While(q, (build.call(LESS, y, eight, q),), twice)
    body = (build.call(LESS, y, eight, q), Case(q, (once, (again,))))
    build.code += [Copy(y0, y), While(p, (build.call(LESS, y, n, p),), body)]
    package = build.load(tmp_path / "a")
    for start in (1, 3, 8, 13):
        want = start
        while want < 20:
            if want < 8:
                while want < 8:
                    want *= 2
            else:
                want += 1
        assert package.run(x=np.array(start, np.int32), n=np.array(20, np.int32))["y"] == want


def test_device_numbers_and_duplicate_results(tmp_path: Path) -> None:
    build = Builder(devices=5)
    number = build.device()
    build.result("a", "ui32", (5,), shard=0, buffer=number)
    x = build.argument("x", "f32", (2,))
    build.result("b", "f32", (2,), buffer=x)
    build.result("c", "f32", (2,), buffer=x)
    out = build.load(tmp_path / "a").run(x=np.array([1, 2], np.float32))
    np.testing.assert_array_equal(out["a"], range(5))
    np.testing.assert_array_equal(out["b"], out["c"])
    out["b"][0] = 7
    assert out["c"][0] == 1


@pytest.mark.parametrize(("devices", "threads"), [(1, 1), (1, 4), (2, 4), (4, 2)])
def test_kernels_are_divided_over_idle_threads(tmp_path: Path, devices: int, threads: int) -> None:
    build = Builder(devices=devices)
    x = build.argument("x", "i32", (devices, 64), shard=0)
    y = build.result("y", "i32", (devices, 64), shard=0)
    build.code.append(build.call(GRID, x, y))
    package = build.load(tmp_path / "a", threads=threads)
    assert package.threads == threads
    data = np.arange(devices * 64, dtype=np.int32).reshape(devices, 64)
    for _ in range(20):
        np.testing.assert_array_equal(package.run(x=data)["y"], data + 20000)


def test_zero_size_tensors(tmp_path: Path) -> None:
    build = Builder(devices=2)
    x = build.argument("x", "f32", (0, 4), shard=1)
    y = build.result("y", "f32", (0, 4), shard=1)
    t = build.temporary(0)
    build.code += [Copy(x, t), Fill(t, b"\0")]
    build.collective("all_reduce", t, y, "f32", (0, 2), reductions=("add",))
    out = build.load(tmp_path / "a").run(x=np.zeros((0, 4), np.float32))
    assert out["y"].shape == (0, 4)


def sleeping(devices: int = 4) -> Builder:
    """Each device sleeps x ms, then all meet."""
    build = Builder(devices=devices)
    x = build.argument("x", "i32", (devices,), shard=0)
    y = build.result("y", "i32", (1,))
    t = build.temporary(4)
    build.code.append(build.call(SLEEP, x, t))
    build.collective("all_reduce", t, y, "i32", (1,), reductions=("add",))
    return build


def test_a_late_device_is_an_error_within_the_deadline(tmp_path: Path) -> None:
    package = sleeping().load(tmp_path / "a", threads=4, deadline_s=0.3)
    begin = time.monotonic()
    with pytest.raises(TransportError, match=r"#1 missed its deadline of 0\.3 s") as info:
        package.run(x=np.array([0, 0, 1500, 0], np.int32))
    assert time.monotonic() - begin < 4
    assert "devices 0, 1, 3 arrived, 2 (in sleepy) did not" in str(info.value)
    # The kernel came back, so the package can run again.
    assert package.run(x=np.array([1, 2, 3, 4], np.int32))["y"] == 10


def test_a_kernel_that_never_returns_is_left_behind(tmp_path: Path) -> None:
    """In a child, because its thread stays: run returns, and the process can end."""
    code = f"""
import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from pai.runtime.errors import TransportError
from pai.runtime.executor import load
package = load({str(sleeping(2).write(tmp_path / "a"))!r}, threads=2, deadline_s=0.2)
begin = time.monotonic()
for _ in range(2):
    try:
        package.run(x=np.array([0, 10**6], np.int32))
    except TransportError as error:
        print(error.what)
print("after", time.monotonic() - begin < 8)
del package
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    assert "missed its deadline" in lines[0]
    assert "never returned" in lines[1]
    assert lines[2] == "after True"


def test_waiting_for_a_thread_is_not_being_late(tmp_path: Path) -> None:
    package = sleeping(8).load(tmp_path / "a", threads=1, deadline_s=0.4)
    assert package.run(x=np.full(8, 150, np.int32))["y"] == 1200


def test_devices_that_diverge_are_an_error_at_once(tmp_path: Path) -> None:
    build = Builder(devices=3)
    x = build.argument("x", "i32", (3,), shard=0)
    y = build.result("y", "i32", (1,))
    build.code.append(Fill(y, b"\0"))
    meet = Builder(devices=3)
    meet.collective("all_reduce", x, y, "i32", (1,), reductions=("add",))
    build.code.append(Case(x, ((), tuple(meet.code))))
    package = build.load(tmp_path / "a", threads=2)
    begin = time.monotonic()
    with pytest.raises(TransportError, match="can never complete: devices 0, 2 arrived, 1 ") as e:
        package.run(x=np.array([1, 0, 1], np.int32))
    assert time.monotonic() - begin < 5
    assert "1 (has ended) did not" in str(e.value)
    assert package.run(x=np.array([0, 0, 0], np.int32))["y"] == 0
    assert package.run(x=np.array([1, 1, 1], np.int32))["y"] == 3


@pytest.mark.parametrize("devices", [1, 2])
def test_interrupt_ends_a_long_run(tmp_path: Path, devices: int) -> None:
    out = counting(devices).write(tmp_path / "a")
    np.savez(
        tmp_path / "in.npz", x=np.zeros(devices, np.int32), n=np.full(devices, 2**31 - 1, np.int32)
    )
    command = [
        sys.executable,
        "-P",
        "-m",
        "pai.run",
        str(out),
        "--inputs",
        str(tmp_path / "in.npz"),
        "--repeat",
        "1000",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    assert process.wait(timeout=20) == 130
    assert time.monotonic() - begin < 3
    assert process.stderr is not None and process.stderr.read() == "pai-run: error: interrupted\n"


def stateful() -> Builder:
    """count -> count + 1, in place when ``inplace``; a second state swaps with a third."""
    build = Builder(devices=2)
    count = build.argument("count", "i32", (2,), shard=0, role=Role.STATE)
    a = build.argument("a", "i32", (2,), shard=0, role=Role.STATE)
    c = build.argument("c", "i32", (2,), shard=0, role=Role.STATE)
    build.weights |= {
        name: np.full(2, k, np.int32) for name, k in (("count", 0), ("a", 1), ("c", 2))
    }
    build.code += [build.call(INC, count, count)]
    build.result("count_out", "i32", (2,), shard=0, buffer=count, updates="count")
    build.result("a_out", "i32", (2,), shard=0, buffer=c, updates="a")
    build.result("c_out", "i32", (2,), shard=0, buffer=a, updates="c")
    return build


def test_states_are_kept_only_when_asked(tmp_path: Path) -> None:
    out = stateful().write(tmp_path / "a")
    fresh = load(out)
    kept = load(out, stateful=True)
    for turn in (1, 2, 3):
        np.testing.assert_array_equal(fresh.run()["count_out"], [1, 1])
        got = kept.run()
        np.testing.assert_array_equal(got["count_out"], [turn, turn])
        assert (got["a_out"][0], got["c_out"][0]) == ((2, 1) if turn % 2 else (1, 2))
    np.testing.assert_array_equal(
        kept.run(count=np.array([10, 20], np.int32))["count_out"], [11, 21]
    )
    outputs, seconds = kept.run_repeated(5, {})
    np.testing.assert_array_equal(outputs["count_out"], [16, 26])
    assert len(seconds) == 5


def test_states_without_a_value_are_inputs(tmp_path: Path) -> None:
    build = stateful()
    build.weights.clear()
    package = build.load(tmp_path / "a", stateful=True)
    assert [spec.name for spec in package.inputs] == ["count", "a", "c"]
    states = {name: np.zeros(2, np.int32) for name in ("count", "a", "c")}
    assert package.run(states)["count_out"][0] == 1
    assert package.run()["count_out"][0] == 2


def test_trace_names_kernels_and_collectives(tmp_path: Path) -> None:
    package = sleeping(2).load(tmp_path / "a")
    out = package.trace(tmp_path / "t.json", {"x": np.array([1, 2], np.int32)})
    assert out["y"] == 3
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    spans = [(e["tid"], e["name"]) for e in events if e["ph"] == "X"]
    for device in (0, 1):
        assert [name for tid, name in spans if tid == device][:2] == ["sleepy", "all_reduce #1"]
    slept = next(e["dur"] for e in events if e["name"] == "sleepy" and e["tid"] == 1)
    assert slept >= 2000


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b.buffers.append(Buffer("arena", 0, 4096)),
        lambda b: b.buffers.append(Buffer("arena", 32, 0)),
        lambda b: b.buffers.append(Buffer("weird", 0, 0)),
        lambda b: b.code.append(Copy(0, 99)),
        lambda b: b.code.append(Copy(b.temporary(4), b.temporary(8))),
        lambda b: b.code.append(Fill(b.temporary(4), b"abc")),
        lambda b: b.collective("all_reduce", 0, 2, "i32", (1,), reductions=("sub",)),
        lambda b: b.collective("all_reduce", 0, 2, "i32", (2,), reductions=("add",)),
        lambda b: b.collective(
            "all_reduce", 0, 2, "i32", (1,), reductions=("add",), groups=((0,),)
        ),
        lambda b: b.collective("all_gather", 0, 2, "i32", (1,), dims=(0,)),
        lambda b: b.collective("broadcast", 0, 2, "i32", (1,)),
        lambda b: b.collective("collective_permute", 0, 2, "i32", (1,), pairs=((0, 7),)),
    ],
)
def test_damaged_programs_are_errors(tmp_path: Path, damage) -> None:
    build = counting(2)
    damage(build)
    with pytest.raises(PackageError):
        build.load(tmp_path / "a", verify=False)
