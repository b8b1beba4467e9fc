"""The errors a user of pai-compile can meet: what, where, and what to do next."""

from __future__ import annotations


class PaiError(Exception):
    """Base of every error that is the user's to fix; printed as one line, never a traceback.

    Args:
        what: one sentence saying what is wrong.
        where: the file, node, argument or line it concerns ("" when there is none).
        hint: what to do next ("" when nothing helps).
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        super().__init__(what, where, hint)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """Return the one-line form ``where: what; hint``."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.hint}" if self.hint else text


class InvalidModel(PaiError):
    """The model file is missing, damaged, or not a valid graph."""

    exit_code = 3


class UnsupportedOp(PaiError):
    """An operator, or a form of it, that cannot be compiled; names the user's own node."""

    exit_code = 4


class InvalidShape(PaiError):
    """A dimension is left open, or a given shape does not fit the model."""

    exit_code = 5


class InvalidSharding(PaiError):
    """A sharding annotation that does not fit the tensor or the mesh."""

    exit_code = 6


class InvalidCluster(PaiError):
    """An unknown cluster profile, or a cluster file with a wrong entry."""

    exit_code = 7


class InfeasiblePlan(PaiError):
    """No plan fits the memory of the devices; names the binding constraint."""

    exit_code = 8


class PassFailure(PaiError):
    """A pass failed; names the pass, the IR location and the dumped module."""

    exit_code = 9


class PackageError(PaiError):
    """A package is corrupt, foreign, for another CPU, or cannot be written."""

    exit_code = 10


class InvalidInput(PaiError):
    """A run was given an input of the wrong name, shape or dtype."""

    exit_code = 11


class TransportError(PaiError):
    """A collective missed its deadline or a peer is gone."""

    exit_code = 12


class VerificationFailed(PaiError):
    """The compiled package does not compute the model's function within tolerance."""

    exit_code = 13


class InvalidSchedule(PaiError):
    """A pipeline schedule that cannot be executed, or does not fit its stages."""

    exit_code = 14


class UnsupportedPlan(PaiError):
    """A plan that can be modelled but that packages cannot run yet."""

    exit_code = 15
