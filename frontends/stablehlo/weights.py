"""Values of parameters that stand in ``<model>.safetensors`` beside ``<model>.mlir``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pai.dialects.program import Role, Signature, Value, Weights
from pai.runtime import safetensors
from pai.runtime.errors import InvalidModel


def weights_beside(signature: Signature, source: str) -> Weights:
    """Return the values of the arguments that are parameters or state.

    A file that is missing is an error only where values are asked for: a plan needs none.

    Raises:
        InvalidModel: when one of the tensors is missing in the file.
    """
    wanted = [v for v in signature.arguments if v.role in {Role.PARAMETER, Role.STATE}]
    if not wanted:
        return Weights()
    path = Path(source).with_suffix(".safetensors")
    if not path.is_file():
        absent = InvalidModel(
            f"argument '{wanted[0].name}' is a {wanted[0].role} but there is no {path.name}",
            source,
            "put the values in a safetensors file beside the model",
        )
        return Weights(absent=absent)
    tensors = safetensors.read(np.memmap(path, np.uint8, "r"), str(path))
    missing = [value.name for value in wanted if value.name not in tensors]
    if missing:
        raise InvalidModel(f"has no tensor '{missing[0]}'", str(path))
    return Weights({v.name: partial(_load, tensors[v.name], v, str(path)) for v in wanted})


def _load(data: np.ndarray, value: Value, where: str) -> np.ndarray:
    return safetensors.typed(data, value.dtype, value.shape, f"{where}, tensor '{value.name}'")
