"""All published rows, and how far predictions are from them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.published.alpa import alpa
from benchmarks.published.case import DATA, Case, Row, read_rows
from benchmarks.published.megatron import korthikanti, llama3, mcore, sc21
from benchmarks.published.torch_tables import llmfoundry, torchtitan
from pai.runtime.errors import PaiError


class Reader(Protocol):
    """Turns a row of a table into what it measures."""

    def __call__(self, row: Row, *, fitted: bool) -> Iterator[Case]:
        """Yield the row's times."""
        ...


READERS: dict[str, Reader] = {
    "sc21": sc21,
    "korthikanti": korthikanti,
    "llmfoundry_fsdp": llmfoundry,
    "alpa_v100": alpa,
    "mcore_h100": mcore,
    "llama3_h100": llama3,
    "torchtitan": torchtitan,
}

CALCULON = (0.103, 0.178)
"""Mean and maximum error of Calculon on Megatron's table (M. Isaev et al., SC'23)."""


def read_cases(folder: Path = DATA, unread: list[str] | None = None) -> list[Case]:
    """Return the rows of all tables in a folder; tables that it lacks have none.

    Args:
        folder: where the files are.
        unread: takes a line for each row that cannot be read; without it, such a row is an error.
    """
    out: list[Case] = []
    for table, reader in READERS.items():
        for number, (row, fitted) in enumerate(read_rows(folder, table), 2):
            try:
                out += reader(row, fitted=fitted)
            except (PaiError, KeyError, ValueError, TypeError) as error:
                if unread is None:
                    raise
                unread.append(f"{table}.csv:{number}: {error!r}")
    return out


@dataclass(frozen=True)
class Errors:
    """Relative errors of predicted times.

    Args:
        count: rows.
        mean: mean of their absolute values.
        p90: their 90th percentile.
        most: the largest.
        bias: mean with sign; positive is too slow.
    """

    count: int
    mean: float
    p90: float
    most: float
    bias: float

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Errors | None:
        """Return the errors of (predicted, measured) pairs; None without any."""
        ratios = np.array([predicted / measured - 1 for predicted, measured in pairs])
        if not len(ratios):
            return None
        size = np.abs(ratios)
        p90 = float(np.quantile(size, 0.9))
        return cls(len(ratios), float(size.mean()), p90, float(size.max()), float(ratios.mean()))


def constant_rate(cases: Sequence[Case]) -> float:
    """Return the one rate, in FLOP/s, that is the median of the fitted half's."""
    fitted = [case.flops / case.measured for case in cases if case.fitted]
    return statistics.median(fitted or [case.flops / case.measured for case in cases])


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's correlation; equal values share their ranks."""
    if len(first) < 2:
        return 1.0
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values)
    return np.array([(array < v).sum() + (array == v).sum() / 2 for v in array])
