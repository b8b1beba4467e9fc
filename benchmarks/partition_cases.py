"""Run the generated cases of the partitioner and write the table of verdicts by family.

``python -m benchmarks.partition_cases --cases 20000 --jobs 2`` runs them all;
``--family conv --case 1234`` runs one again and shows it. Verdicts are appended to a file as they
come, and a second run with the same file goes on where the first ended. Cases run in child
processes: one that dies or hangs is a verdict, not the end.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests" / "differential"
STATES = ("right", "refused", "wrong", "crashed", "oracle")
CHUNK = 64
LIMIT_S = 240.0

Verdict = dict[str, Any]


class Child:
    """A process that runs chunks of cases."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.partition_cases", "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            },
        )

    def run(self, family: str, numbers: Sequence[int], limit: float) -> list[Verdict] | str:
        """Return the verdicts, or how the child died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        expired = threading.Event()

        def stop() -> None:
            expired.set()
            self.process.kill()

        timer = threading.Timer(limit, stop)
        timer.start()
        try:
            self.process.stdin.write(json.dumps([family, list(numbers)]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if line:
            out: list[Verdict] = json.loads(line)
            return out
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return f"took longer than {limit:g} s" if expired.is_set() else f"died with code {code}"


def serve() -> None:
    """Run the chunks named on stdin, one line each; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(TESTS))
    from generate import FAMILIES  # noqa: PLC0415
    from generate.cases import run_numbers  # noqa: PLC0415

    for line in sys.stdin:
        family, numbers = json.loads(line)
        verdicts = run_numbers(family, FAMILIES[family], numbers)
        answers.write(json.dumps([v.as_dict() for v in verdicts]) + "\n")
        answers.flush()


def run_chunk(child: Child, family: str, numbers: Sequence[int]) -> tuple[Child, list[Verdict]]:
    """Run a chunk; when the child dies, halve it until the guilty case stands alone."""
    answer = child.run(family, numbers, LIMIT_S)
    if not isinstance(answer, str):
        return child, answer
    child = Child()
    if len(numbers) == 1:
        dead = {"family": family, "number": numbers[0], "status": "crashed", "detail": answer}
        return child, [{**dead, "mode": "", "gathered": []}]
    half = len(numbers) // 2
    child, left = run_chunk(child, family, numbers[:half])
    child, right = run_chunk(child, family, numbers[half:])
    return child, left + right


def sweep(chunks: list[tuple[str, list[int]]], jobs: int, path: Path) -> None:
    """Run chunks on ``jobs`` children and append their verdicts to ``path``."""
    lock = threading.Lock()
    chunks = chunks[::-1]
    total, begin = len(chunks), time.perf_counter()

    def work() -> None:
        child = Child()
        while True:
            with lock:
                if not chunks:
                    break
                family, numbers = chunks.pop()
            child, verdicts = run_chunk(child, family, numbers)
            with lock, path.open("a") as file:
                file.writelines(json.dumps(v) + "\n" for v in verdicts)
                bad = sum(v["status"] not in ("right", "oracle") for v in verdicts)
                done = total - len(chunks)
                print(f"{done}/{total} {time.perf_counter() - begin:.0f} s {family} {bad} bad")
        child.process.kill()
        child.process.wait()

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begin
    with path.open("a") as file:
        file.write(json.dumps({"seconds": elapsed}) + "\n")


def read(path: Path) -> tuple[dict[tuple[str, int], Verdict], float]:
    """Return the verdicts by case, and the seconds they took."""
    verdicts, seconds = {}, 0.0
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line)
        if "seconds" in entry:
            seconds += entry["seconds"]
        else:
            verdicts[entry["family"], entry["number"]] = entry
    return verdicts, seconds


def table(verdicts: Iterable[Verdict]) -> str:
    """Return the counts by family, in markdown."""
    rows: dict[str, collections.Counter[str]] = {}
    for verdict in verdicts:
        row = rows.setdefault(verdict["family"], collections.Counter())
        row[verdict["status"]] += 1
        row["gathered"] += bool(verdict["gathered"])
        row["again"] += verdict.get("again", 0) * (verdict["number"] % 4 == 0)
    total = sum(rows.values(), collections.Counter())
    lines = ["| family | cases | " + " | ".join(STATES)]
    lines[0] += " | gathers an operand | drawn again |"
    lines.append("|---|" + "---:|" * (len(STATES) + 3))
    for name, row in [*sorted(rows.items()), ("**all**", total)]:
        counts = [
            sum(row[s] for s in STATES),
            *(row[s] for s in STATES),
            row["gathered"],
            row["again"],
        ]
        lines.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def chunks_of(
    shares: dict[str, float], cases: int, done: set[tuple[str, int]]
) -> list[tuple[str, list[int]]]:
    """Return (family, numbers) chunks of what is left to do, the families in turn.

    Args:
        shares: how much of the cases each family gets.
        cases: in all.
        done: cases to leave out.
    """
    out: list[tuple[float, str, list[int]]] = []
    for family, share in shares.items():
        count = -(-cases * share // sum(shares.values()))
        for first in range(0, int(count), CHUNK):
            numbers = range(first, min(first + CHUNK, int(count)))
            left = [number for number in numbers if (family, number) not in done]
            if left:
                out.append((first / count, family, left))
    return [(family, numbers) for _, family, numbers in sorted(out)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 when a case is wrong or crashed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partition_cases")
    parser.add_argument("--cases", type=int, default=20000, help="in all families together")
    parser.add_argument("--jobs", type=int, default=2, help="child processes")
    parser.add_argument("--family", action="append", help="only this one; may be repeated")
    parser.add_argument("--case", type=int, help="run one case of a family and show it")
    parser.add_argument("--out", type=Path, default=Path("partition_cases.jsonl"))
    parser.add_argument("--again", action="store_true", help="also run what failed before")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve()
        return 0
    sys.path.insert(0, str(TESTS))
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    from generate import FAMILIES, WEIGHTS  # noqa: PLC0415

    families = options.family or list(FAMILIES)
    if options.case is not None:
        return show(families[0], options.case)
    verdicts, _ = read(options.out)
    kept = {k for k, v in verdicts.items() if not options.again or v["status"] == "right"}
    shares = {family: WEIGHTS.get(family, 1.0) for family in families}
    sweep(chunks_of(shares, options.cases, kept), options.jobs, options.out)
    verdicts, seconds = read(options.out)
    print(table(verdicts.values()))
    print(f"\n{len(verdicts)} cases in {seconds:.0f} s on {options.jobs} processes")
    for verdict in verdicts.values():
        if verdict["status"] not in ("right", "oracle"):
            print(verdict["family"], verdict["number"], verdict["status"], verdict["detail"][:200])
    return int(any(v["status"] in ("wrong", "crashed") for v in verdicts.values()))


def show(family: str, number: int) -> int:
    """Print one case and what becomes of it."""
    from generate import FAMILIES  # noqa: PLC0415
    from generate.cases import describe, run_numbers  # noqa: PLC0415

    print(describe(family, FAMILIES[family], number))
    (verdict,) = run_numbers(family, FAMILIES[family], [number])
    print(verdict)
    return int(verdict.status in ("wrong", "crashed"))


if __name__ == "__main__":
    sys.exit(main())
