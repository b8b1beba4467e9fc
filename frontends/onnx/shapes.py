"""Binding the open dimensions of a model's inputs to the sizes the user gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from onnx import TypeProto, ValueInfoProto

from pai.frontends.onnx.tensors import numpy_dtype
from pai.runtime.errors import InvalidShape, UnsupportedOp

Dimension = int | str | None

# What exporters write for an open dimension that has no name.
_NAMELESS = ("", "?", "-1", "None")


@dataclass(frozen=True)
class Input:
    """An input as the model declares it.

    Args:
        name: its name; an element of a sequence is ``NAME.0``, ``NAME.1``, …
        dtype: element type.
        dims: each a size, a name, or None; None altogether when the rank is unknown.
        sequence: the sequence it is an element of, "" for a tensor.
    """

    name: str
    dtype: np.dtype
    dims: tuple[Dimension, ...] | None
    sequence: str = ""


@dataclass(frozen=True)
class Sizes:
    """What the user said: sizes of named dimensions, shapes of inputs, values of inputs."""

    named: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)


def declared(value: ValueInfoProto, sizes: Sizes, where: str) -> list[Input]:
    """Return the declared type of a graph input: one entry, or one per element of a sequence.

    A sequence has as many elements as shapes are given for them. An optional input is present.

    Raises:
        InvalidShape: for a sequence of whose elements no shape is given.
        UnsupportedOp: for an input that is not made of tensors of numbers.
    """
    kind = value.type
    if kind.WhichOneof("value") == "optional_type":
        kind = kind.optional_type.elem_type
    if kind.WhichOneof("value") == "tensor_type":
        return [_tensor_input(value.name, kind.tensor_type, where)]
    if kind.WhichOneof("value") != "sequence_type":
        what = (kind.WhichOneof("value") or "untyped").removesuffix("_type")
        raise UnsupportedOp(f"input '{value.name}' is of type {what}, not a tensor", where)
    count = 0
    while f"{value.name}.{count}" in sizes.inputs:
        count += 1
    if not count:
        raise InvalidShape(
            f"input '{value.name}' is a sequence whose length is left open",
            where,
            f"give the shape of each element, e.g. --shape {value.name}.0:1,3",
        )
    element = kind.sequence_type.elem_type.tensor_type
    entry = _tensor_input(value.name, element, where)
    own = entry.dims and tuple(d if isinstance(d, int) else None for d in entry.dims)
    return [
        replace(entry, name=f"{value.name}.{i}", dims=own, sequence=value.name)
        for i in range(count)
    ]


def _tensor_input(name: str, tensor: TypeProto.Tensor, where: str) -> Input:
    dtype = numpy_dtype(tensor.elem_type, f"{where}: input '{name}'")
    if dtype == np.dtype(object):
        raise UnsupportedOp(f"input '{name}' holds strings", where, "tokenize outside")
    if not tensor.HasField("shape"):
        return Input(name, dtype, None)
    dims: list[Dimension] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            dims.append(dim.dim_value if dim.dim_value >= 0 else None)
        else:
            dims.append(dim.dim_param if dim.dim_param not in _NAMELESS else None)
    return Input(name, dtype, tuple(dims))


def parse_sizes(specs: Sequence[str]) -> Sizes:
    """Parse ``batch=8,seq=128``, ``INPUT:1,3,224,224`` and ``INPUT:=16000`` (a fixed value).

    Several may stand in one text, joined by ``;``.

    Raises:
        InvalidShape: when a text is neither.
    """
    sizes = Sizes()
    for spec in (part.strip() for text in specs for part in text.split(";")):
        fixed = re.fullmatch(r"(.+?):=(.+)", spec)
        if fixed:
            sizes.values[fixed[1]] = _numbers(fixed[2], spec)
            continue
        whole = re.fullmatch(r"(.+):\s*((?:\d+\s*(?:,\s*\d+\s*)*)?)", spec)
        if whole:
            name, dims = whole.groups()
            shape = tuple(int(size) for size in dims.split(",")) if dims.strip() else ()
            if sizes.inputs.setdefault(name, shape) != shape:
                raise InvalidShape(f"input '{name}' is given two shapes", f"--shape {spec}")
            continue
        for part in filter(None, (part.strip() for part in spec.split(","))):
            named = re.fullmatch(r"(.+?)\s*=\s*(\d+)", part)
            if not named:
                raise InvalidShape(
                    f"cannot read '{part}'",
                    f"--shape {spec}",
                    "write NAME=SIZE,... or INPUT:SIZE,SIZE,...",
                )
            name, size = named[1], int(named[2])
            if sizes.named.setdefault(name, size) != size:
                raise InvalidShape(f"dimension '{name}' is given two sizes", f"--shape {spec}")
    return sizes


def _numbers(text: str, spec: str) -> list[float]:
    try:
        return [float(part) if "." in part else int(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidShape(
            f"cannot read the value '{text}'", f"--shape {spec}", "write INPUT:=NUMBER,NUMBER,..."
        ) from error


def fixed_values(inputs: Sequence[Input], specs: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the inputs whose value is fixed by ``INPUT:=VALUE``, as arrays.

    Raises:
        InvalidShape: an unknown input, or a number of values that does not fit its shape.
    """
    by_name = {entry.name: entry for entry in inputs}
    found = {}
    for name, numbers in parse_sizes(specs).values.items():
        if name not in by_name:
            raise InvalidShape(
                f"there is no input '{name}'", "", f"the inputs are: {', '.join(by_name)}"
            )
        value = np.asarray(numbers).astype(by_name[name].dtype)
        shape = _shape_of_values(by_name[name], value.size)
        if shape is None:
            raise InvalidShape(f"{value.size} values do not fit input {describe(by_name[name])}")
        found[name] = value.reshape(shape)
    return found


def _shape_of_values(entry: Input, count: int) -> tuple[int, ...] | None:
    """Return the shape that ``count`` fixed values of an input have, or None."""
    if entry.dims is None:
        return () if count == 1 else (count,)
    if len(entry.dims) == 1 and not isinstance(entry.dims[0], int):
        return (count,)
    shape = tuple(dim for dim in entry.dims if isinstance(dim, int))
    return shape if len(shape) == len(entry.dims) and prod(shape) == count else None


def bind(inputs: Sequence[Input], specs: Sequence[str], where: str) -> list[tuple[int, ...]]:
    """Return the static shape of each input.

    Args:
        inputs: the declared inputs.
        specs: what the user gave, see ``parse_sizes``.
        where: model file, for messages.

    Raises:
        InvalidShape: open dimensions, unknown names, or a shape that contradicts the model.
    """
    sizes = parse_sizes(specs)
    named = dict(sizes.named)
    _check_names(inputs, sizes, where)
    for entry in inputs:
        if entry.name in sizes.inputs:
            _match(entry, sizes.inputs[entry.name], named, where)
    shapes = [_close(entry, sizes, named) for entry in inputs]
    if any(shape is None for shape in shapes):
        raise _open_dimensions(inputs, named, sizes, where)
    return [shape for shape in shapes if shape is not None]


def _close(entry: Input, sizes: Sizes, named: dict[str, int]) -> tuple[int, ...] | None:
    if entry.name in sizes.inputs:
        return sizes.inputs[entry.name]
    if entry.dims is None:
        return None
    shape = [named.get(dim) if isinstance(dim, str) else dim for dim in entry.dims]
    return None if None in shape else tuple(size for size in shape if size is not None)


def _check_names(inputs: Sequence[Input], sizes: Sizes, where: str) -> None:
    known = {dim for entry in inputs for dim in entry.dims or () if isinstance(dim, str)}
    names = [entry.name for entry in inputs]
    for name in sizes.named:
        if name not in known:
            have = ", ".join(sorted(known)) or "none"
            raise InvalidShape(
                f"there is no dimension '{name}'", where, f"the named dimensions are: {have}"
            )
    for name in sizes.inputs:
        if name not in names:
            raise InvalidShape(
                f"there is no input '{name}'", where, f"the inputs are: {', '.join(names)}"
            )


def _match(entry: Input, shape: tuple[int, ...], named: dict[str, int], where: str) -> None:
    """Check a whole shape against the declaration; note what it says of named dimensions."""
    if entry.dims is None:
        return
    text = ",".join(map(str, shape))
    if len(shape) != len(entry.dims):
        raise InvalidShape(
            f"input '{entry.name}' has {len(entry.dims)} dimensions but '{text}' has {len(shape)}",
            where,
            f"the model declares {describe(entry)}",
        )
    for dim, size in zip(entry.dims, shape, strict=True):
        want = named.setdefault(dim, size) if isinstance(dim, str) else dim
        if want is not None and want != size:
            what = (
                f"dimension '{dim}' is both {want} and {size}"
                if isinstance(dim, str)
                else (f"'{text}' says {size} where the model has {want}")
            )
            raise InvalidShape(
                f"input '{entry.name}': {what}", where, f"the model declares {describe(entry)}"
            )


def describe(entry: Input) -> str:
    """Return ``name[batch,3,?]``."""
    if entry.dims is None:
        return f"{entry.name}[of unknown rank]"
    return f"{entry.name}[{','.join('?' if d is None else str(d) for d in entry.dims)}]"


def _open_dimensions(
    inputs: Sequence[Input], named: dict[str, int], sizes: Sizes, where: str
) -> InvalidShape:
    """Return the error that lists the open inputs and what to type."""
    left = [entry for entry in inputs if _close(entry, sizes, named) is None]
    names: list[str] = []
    wholes: list[str] = []
    for entry in left:
        dims = entry.dims
        if dims is not None and None not in dims:
            names += [d for d in dims if isinstance(d, str) and d not in names + list(named)]
        else:
            guess = [named.get(d, 1) if isinstance(d, str) else d or 1 for d in dims or ()]
            wholes.append(f"--shape {entry.name}:{','.join(map(str, guess))}")
    typed = [f"--shape {','.join(f'{name}=1' for name in names)}"] if names else []
    return InvalidShape(
        f"dimensions are left open: {', '.join(map(describe, left))}",
        where,
        f"give their sizes, e.g. {' '.join(typed + wholes)}",
    )
