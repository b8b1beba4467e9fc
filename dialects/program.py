"""Program: what a frontend makes and every later stage reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from pai.dialects.mlir import ir
from pai.runtime.dtypes import itemsize
from pai.runtime.errors import InvalidModel


class Role(StrEnum):
    """What an argument or result is to the user."""

    INPUT = "input"
    PARAMETER = "parameter"
    STATE = "state"
    OUTPUT = "output"
    CHECK = "check"  # a result that must be true: the module checks itself


@dataclass(frozen=True)
class Value:
    """One argument or result of a program.

    Args:
        name: the user's own name.
        role: input, parameter, state, output or check.
        dtype: MLIR spelling of the element type: f32, bf16, i64, ui8, i1, complex<f32>, f8E4M3FN…
        shape: global shape.
        updates: for a result, the name of the state argument it replaces ("" when none).
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...]
    updates: str = ""

    @property
    def num_bytes(self) -> int:
        """The bytes of the whole tensor."""
        return itemsize(self.dtype) * math.prod(self.shape)


@dataclass(frozen=True)
class Signature:
    """The arguments and results of ``@main``, in order."""

    arguments: tuple[Value, ...]
    results: tuple[Value, ...]


@dataclass(frozen=True)
class Weights:
    """Parameter values by name, loaded when asked for; never part of the IR.

    Args:
        loaders: name to a function that returns the array (usually a view of a mapped file).
        absent: why there are none although the model has parameters; planning does without.
    """

    loaders: Mapping[str, Callable[[], np.ndarray]] = field(default_factory=dict)
    absent: InvalidModel | None = None

    def require(self) -> None:
        """Check that the values are there; raises InvalidModel."""
        if self.absent is not None:
            raise self.absent

    def load(self, name: str) -> np.ndarray:
        """Return the array of parameter ``name``; sub-byte and bool types one byte an element."""
        self.require()
        return self.loaders[name]()


@dataclass(frozen=True)
class Program:
    """A StableHLO module with one public function ``@main``, its signature and its weights.

    Args:
        name: short name, from the model's file name.
        module: the module; passes change it in place.
        signature: names, roles, types of the arguments and results.
        weights: the values of the arguments whose role is parameter or state.
        source: where the model came from (a path), for messages.
        fixed: inputs of the model whose value was fixed at import, so that they are no arguments.
    """

    name: str
    module: ir.Module
    signature: Signature
    weights: Weights = field(default_factory=Weights)
    source: str = ""
    fixed: Mapping[str, np.ndarray] = field(default_factory=dict)
