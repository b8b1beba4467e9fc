"""A published row as something to predict."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.published.network import network
from pai.passes.strategy.calibration import Calibration
from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.memory import MemoryCost, State, memory_cost
from pai.passes.strategy.step import Execution, StepCost, step_cost
from pai.passes.strategy.transformer import Split, Stack, Transformer, transformer_workload
from pai.passes.strategy.workload import Workload
from pai.runtime.topology import DeviceSpec, load_cluster

DATA = Path(__file__).resolve().parents[1] / "data" / "published"
Row = dict[str, str]


@dataclass(frozen=True)
class Setup:
    """One way to run a model on a cluster.

    Args:
        model: dimensions.
        microbatch: sequences.
        profile: cluster profile.
        split: tensor and context parallelism.
        stack: the program's kernels.
        run: pipeline, replicas, ZeRO and recompute.
        state: bytes of training state.
        fabric: rate between hosts as a multiple of the profile's.
    """

    model: Transformer
    microbatch: int
    profile: str
    split: Split
    stack: Stack
    run: Execution
    state: State = field(default_factory=State)
    fabric: float = 1.0

    @property
    def axes(self) -> tuple[tuple[str, int], ...]:
        """Mesh axes, major first: tensor-parallel devices are neighbours."""
        return (
            ("stage", self.run.stages),
            ("data", self.run.replicas),
            ("context", self.split.context),
            ("tensor", self.split.tensor),
        )

    @property
    def device(self) -> DeviceSpec:
        """The cluster's device."""
        return load_cluster(self.profile).hosts[0].device

    @property
    def workload(self) -> Workload:
        """The work of one device for one microbatch."""
        return transformer_workload(self.model, self.microbatch, self.split, self.stack)

    def memory(self) -> MemoryCost:
        """Return the memory of the fullest device."""
        return memory_cost(self.workload, self.run, self.state)


@dataclass
class Option:
    """A setup made ready to be costed many times."""

    setup: Setup
    memory: float = field(init=False)

    def __post_init__(self) -> None:
        """Read what does not depend on the constants."""
        self.workload = self.setup.workload
        self.device = self.setup.device
        self.network = network(self.setup.profile, self.setup.axes, self.setup.fabric)
        self.memory = self.setup.memory().total

    def cost(self, constants: Calibration) -> StepCost:
        """Return the time of a step with a set of constants."""
        kernels = Kernels.of(self.device, constants)
        return step_cost(self.workload, self.setup.run, kernels, self.network)


@dataclass
class Case:
    """One measured time.

    Args:
        table: file it is from, without suffix.
        name: its configuration.
        kind: device kind of the constants.
        measured: seconds of a step.
        flops: operations of a step on one device, as the table's convention counts them.
        options: the setup, or those of which the fastest that fits is meant.
        fitted: whether it belongs to the fitted half.
        peak: measured peak memory in bytes; 0 is unknown.
        group: part of the table that is summed up on its own too; "" is ``kind``.
    """

    table: str
    name: str
    kind: str
    measured: float
    flops: float
    options: Sequence[Option]
    fitted: bool = False
    peak: float = 0.0
    group: str = ""

    def fitting(self) -> Sequence[Option]:
        """Return the options that fit the memory; the smallest one if none does."""
        fits = [o for o in self.options if o.memory <= o.device.memory_bytes]
        return fits or [min(self.options, key=lambda option: option.memory)]

    def best(self, constants: Calibration) -> tuple[Option, StepCost]:
        """Return the fastest option that fits, with its cost."""
        costs = [(option, option.cost(constants)) for option in self.fitting()]
        return min(costs, key=lambda pair: pair[1].total)

    def predict(self, constants: Calibration) -> float:
        """Return the predicted seconds of a step."""
        return self.best(constants)[1].total


def read_rows(folder: Path, table: str) -> list[tuple[Row, bool]]:
    """Return a table's rows, each with whether it is of the fitted half.

    A row of another folder is of the fitted half if that half of the repository has it.
    """
    rows = _read(folder / f"{table}.csv")
    fitted = {tuple(row.values()) for row in _read(DATA / f"{table}.csv")[::2]}
    return [(row, tuple(row.values()) in fitted) for row in rows]


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def integers(row: Row, *names: str) -> list[int]:
    """Return some columns of a row as integers."""
    return [int(row[name]) for name in names]


def gpt_flops(batch: int, model: Transformer, passes: int) -> float:
    """Return operations of a step (SC'21, equation 3) of 3 passes, or of 4 with recompute."""
    s, h, v = model.seq, model.hidden, model.vocab
    layers = 24 * passes * batch * s * model.layers * h * h * (1 + s / (6 * h))
    return layers + 6 * batch * s * h * v
