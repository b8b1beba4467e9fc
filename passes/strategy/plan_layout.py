"""The layout of one tensor as data and as text: ``["data p0", "model"]``, a string a dimension."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pai.runtime.errors import InvalidSharding
from pai.runtime.mesh import AxisRef, Mesh, Sharding

_AXIS = re.compile(r"([A-Za-z_]\w*)(?::\((\d+)\)(\d+))?")
_PRIORITY = re.compile(r"(.*?)\s*\bp(\d+)")


@dataclass(frozen=True)
class TensorLayout:
    """The sharding of one argument and the order in which propagation applies it.

    Args:
        sharding: the axes of each dimension.
        priorities: per dimension, its priority (0 first) or None; () is none at all.
        kept: axes along which the argument stays whole while propagation may add others; with no
            sharding of its own, and in no file: ``[zero]`` says it there.
    """

    sharding: Sharding
    priorities: tuple[int | None, ...] = ()
    kept: tuple[AxisRef, ...] = ()

    def priority(self, dim: int) -> int | None:
        """Return the priority of dimension ``dim``."""
        return self.priorities[dim] if self.priorities else None


def matches(pattern: str, name: str) -> bool:
    """Whether ``name`` fits a glob, or a regular expression between slashes, as a whole."""
    return compiled(pattern).fullmatch(name) is not None


@functools.lru_cache(maxsize=1 << 14)
def compiled(pattern: str) -> re.Pattern[str]:
    """Return a glob, or what is between slashes, as a regular expression; raises re.error."""
    if len(pattern) > 1 and pattern[0] == pattern[-1] == "/":
        return re.compile(pattern[1:-1])
    return re.compile(fnmatch.translate(pattern))


def layout_to_texts(layout: TensorLayout) -> list[str]:
    """Return per dimension the text of its axes and priority."""
    out = []
    for dim, axes in enumerate(layout.sharding.dims):
        priority = layout.priority(dim)
        text = ",".join(map(_axis_text, axes))
        out.append(text if priority is None else f"{text} p{priority}".strip())
    return out


def _axis_text(axis: AxisRef) -> str:
    return axis.name if axis.sub_size is None else f"{axis.name}:({axis.pre_size}){axis.sub_size}"


def layout_from_texts(texts: Sequence[str], mesh: Mesh) -> TensorLayout:
    """Return the layout that ``texts`` spell.

    Raises:
        InvalidSharding: for bad syntax, an axis the mesh lacks, or one used twice.
    """
    dims, priorities = [], []
    for text in texts:
        match = _PRIORITY.fullmatch(text.strip())
        axes = (match[1] if match else text).strip()
        priorities.append(int(match[2]) if match else None)
        dims.append(tuple(_axis(part.strip(), mesh) for part in axes.split(",")) if axes else ())
    _check_used_once([axis for axes in dims for axis in axes], mesh)
    given = any(priority is not None for priority in priorities)
    return TensorLayout(Sharding(tuple(dims)), tuple(priorities) if given else ())


def _axis(text: str, mesh: Mesh) -> AxisRef:
    match = _AXIS.fullmatch(text)
    names = ", ".join(f"'{name}'" for name, _ in mesh.axes) or "none"
    if match is None:
        raise InvalidSharding(
            f"'{text}' is not an axis", hint=f"write an axis of the mesh ({names}), 'a,b', or ''"
        )
    if match[1] not in dict(mesh.axes):
        raise InvalidSharding(f"the mesh has no axis '{match[1]}'", hint=f"its axes: {names}")
    if match[2] is None:
        return AxisRef(match[1])
    ref = AxisRef(match[1], int(match[2]), int(match[3]))
    if ref.pre_size < 1 or not ref.sub_size or mesh.size(ref.name) % (ref.pre_size * ref.sub_size):
        raise InvalidSharding(
            f"'{text}' does not divide axis '{ref.name}' of size {mesh.size(ref.name)}"
        )
    return ref


def _check_used_once(axes: Sequence[AxisRef], mesh: Mesh) -> None:
    for i, axis in enumerate(axes):
        for other in axes[:i]:
            lo, hi = sorted((axis, other), key=lambda ref: ref.pre_size)
            if axis.name == other.name and lo.pre_size * lo.size(mesh) > hi.pre_size:
                raise InvalidSharding(
                    f"axis '{axis.name}' is used twice", hint="an axis shards one dimension only"
                )
