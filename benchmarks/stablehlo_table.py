"""The operation × element-type table: every legal pair compiled as one CPU kernel and compared.

Run ``python -m benchmarks.stablehlo_table [--json FILE] [--ops REGEX] [--types REGEX]``. Each cell
runs in a child process with a time limit, so a crash costs one cell. A cell is *right*, *wrong*
(the numbers differ), *refused* (UnsupportedOp), *crashed* (the child died, or another error), or
*no reference* (it ran, but nothing here can say what is right).
"""

from __future__ import annotations

import argparse
import json
import re
import select
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from benchmarks.stablehlo_cells import Cell, all_cells, draw, seed_of
from benchmarks.stablehlo_forms import form_cells
from pai.runtime.dtypes import NAMES
from pai.runtime.errors import PaiError, UnsupportedOp

TIME_LIMIT = 60.0


def cells() -> list[Cell]:
    """Return all cells, in the order of the table."""
    return all_cells() + form_cells()


def run_cell(cell: Cell) -> tuple[str, str]:
    """Return (status, reason) of one cell."""
    from benchmarks.run_kernel import Kernel  # noqa: PLC0415
    from benchmarks.stablehlo_reference import reference  # noqa: PLC0415

    inputs = [draw(k, s, d, seed_of(cell) + i) for i, (k, s, d) in enumerate(cell.inputs)]
    try:
        got = Kernel(cell.text).run(inputs)[0]
    except UnsupportedOp as error:
        return "refused", str(error)
    except PaiError as error:
        return "crashed", str(error)[:400]
    if cell.check == "random":
        return _check_random(cell, got)
    try:
        want, source = reference(cell, inputs, got.dtype)
    except Exception as error:
        return "no reference", f"{type(error).__name__}: {str(error)[:200]}"
    return compare(cell, got, np.asarray(want), source)


def compare(cell: Cell, got: np.ndarray, want: np.ndarray, source: str) -> tuple[str, str]:
    """Return right, or wrong with the first difference."""
    name = NAMES[got.dtype]
    if got.dtype.kind != "c" and "float" not in got.dtype.name and name != "bf16":
        wide_int = np.uint64 if np.issubdtype(got.dtype, np.unsignedinteger) else np.int64
        good = got.astype(wide_int) == np.asarray(want).astype(wide_int)
    else:
        part = got.real.dtype if got.dtype.kind == "c" else got.dtype
        info = ml_dtypes.finfo(part)
        wide = np.complex128 if got.dtype.kind == "c" else np.float64
        with np.errstate(all="ignore"):
            g, w = got.astype(wide), want.astype(wide)
            narrow = info.bits < 32
            size = np.abs(w)
            if cell.loose >= 64 and size.size:
                size = np.maximum(size, np.max(size[np.isfinite(size)], initial=0))
            eps = float(info.eps) * (
                1.01 * max(1, cell.loose / 2)
                if narrow and cell.loose < 64
                else 1.01 * cell.loose
                if not narrow
                else 2
            )
            least = float(info.smallest_subnormal if narrow else info.tiny)
            near = np.abs(g - w) <= eps * size + least
            same = (g == w) | (np.isnan(g) & np.isnan(w))
            good = same | (near & np.isfinite(g) & np.isfinite(w))
    if good.all():
        return "right", source
    at = np.argwhere(~good)[0]
    where = tuple(int(i) for i in at)
    count = f"{int((~good).sum())} of {good.size}, at {where}"
    return "wrong", f"{count}: {got[where]} but {source} says {want[where]}"


def _check_random(cell: Cell, got: np.ndarray) -> tuple[str, str]:
    x = got.astype(np.float64)
    if "UNIFORM" in cell.op:
        if not ((x >= 0) & (x < 1)).all():
            return "wrong", f"outside [0, 1): {x.min()} {x.max()}"
        mean, deviation = (
            (0.0, 0.0)
            if np.issubdtype(got.dtype, np.integer) or "int" in got.dtype.name
            else (0.5, 0.2887)
        )
    else:
        mean, deviation = 0.0, 1.0
    ok = abs(x.mean() - mean) < 0.1 and abs(x.std() - deviation) < 0.1
    return ("right", "moments") if ok else ("wrong", f"mean {x.mean():.3f} deviation {x.std():.3f}")


def _child() -> None:
    table = cells()
    output = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        try:
            status, reason = run_cell(table[int(line)])
        except Exception as error:
            status, reason = "crashed", f"{type(error).__name__}: {str(error)[:300]}"
        output.write(json.dumps([status, reason]) + "\n")
        output.flush()


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.stablehlo_table", "--child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def run_all(numbers: list[int]) -> Iterator[tuple[int, str, str]]:
    """Yield (cell, status, reason), one child at a time."""
    child = _start()
    for number in numbers:
        assert child.stdin and child.stdout
        child.stdin.write(f"{number}\n")
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], TIME_LIMIT)
        line = child.stdout.readline() if ready else ""
        if line:
            status, reason = json.loads(line)
        else:
            child.kill()
            code = child.wait()
            status, reason = "crashed", "time limit" if not ready else f"the process died ({code})"
            child = _start()
        yield number, status, reason
    child.kill()
    child.wait()


def main() -> int:
    """Run the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--verbose", action="store_true", help="print each cell as it is done")
    parser.add_argument("--json", help="write every cell's status and reason here")
    parser.add_argument("--ops", default="", help="only operations that match")
    parser.add_argument("--types", default="", help="only element types that match")
    options = parser.parse_args()
    if options.child:
        _child()
        return 0
    table = cells()
    chosen = [
        i
        for i, c in enumerate(table)
        if re.search(options.ops, c.op) and re.search(options.types, c.type)
    ]
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    records: list[dict[str, Any]] = []
    for number, status, reason in run_all(chosen):
        cell = table[number]
        rows[cell.op][status] += 1
        records.append({"op": cell.op, "type": cell.type, "status": status, "reason": reason})
        if options.verbose:
            print(cell.op, cell.type, status, reason, flush=True)
    _print(rows, records)
    if options.json:
        with open(options.json, "w") as file:  # noqa: PTH123
            json.dump(records, file, indent=1)
    return 0 if all(r["status"] in ("right", "no reference") for r in records) else 1


def _print(rows: dict[str, Counter[str]], records: list[dict[str, Any]]) -> None:
    states = ("right", "wrong", "refused", "crashed", "no reference")
    print(f"{'operation':34s}" + "".join(f"{s:>14s}" for s in states))
    for op, counts in rows.items():
        print(f"{op:34s}" + "".join(f"{counts[s] or '':>14}" for s in states))
    total = Counter(r["status"] for r in records)
    print(f"{'all':34s}" + "".join(f"{total[s]:>14}" for s in states))
    for record in records:
        if record["status"] != "right":
            print(f"{record['op']} {record['type']}: {record['status']}: {record['reason']}")


if __name__ == "__main__":
    sys.exit(main())
