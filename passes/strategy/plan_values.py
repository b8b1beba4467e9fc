"""Layouts of values inside a program: keys that stay the same from run to run, and back.

A key is the name of the operation that makes the value, as its location has it (the user's node or
module), without the ``jit(…)`` around it: ``layers/3/attention/dot_general``. Of several operations
of one name the second is ``…/dot_general#2``. An operation without a name is called after its kind.
``:1`` behind it is the second result, ``:in0`` the first operand as this operation reads it, and
``:then`` a layout that the value takes after the one without, and ``:again`` says that an operand
is brought there anew although an earlier operation has done so. In a plan file keys may be globs
or /regex/, as those of arguments are.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from pai.dialects.mlir import ir
from pai.passes.strategy.annotate import annotate, main_function
from pai.passes.strategy.insights import fold_name, fold_names
from pai.passes.strategy.intra.layouts import Constraint, constrain
from pai.passes.strategy.plan_data import Plan
from pai.passes.strategy.plan_layout import TensorLayout, matches
from pai.passes.strategy.plan_read import PlanFile
from pai.runtime.errors import InvalidSharding

_THEN, _AGAIN = ":then", ":again"
_Entry = tuple[str, TensorLayout]
_Place = tuple[int, int, int]  # operation, operand or -1, result or -1


def apply_plan(module: ir.Module, plan: Plan) -> None:
    """Write the plan's mesh, argument layouts and values into ``module``, in place.

    Raises:
        InvalidSharding: as ``annotate``; and for keys of values that are not there.
    """
    if plan.values and plan.mesh.num_devices > 1:
        constraints = values_to_constraints(module, plan.values)  # numbers of the clean module
        annotate(module, plan)
        constrain(module, constraints, plan.mesh)
    else:
        annotate(module, plan)


def operation_keys(module: ir.Module) -> list[str]:
    """Return the key of each operation of ``@main``, in order."""
    seen: Counter[str] = Counter()
    out = []
    for view in main_function(module).regions[0].blocks[0].operations:
        name = _name(view.operation)
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return out


def _name(op: ir.Operation) -> str:
    location = op.location
    name = location.name_str if isinstance(location, ir.NameLoc) else ""
    name = re.sub(r"^(jit\([^)]*\)/)+", "", name)
    if not name or name.startswith("jit("):
        return op.name.removeprefix("stablehlo.")
    return name.replace(":", "_").replace("*", "_")


def value_keys(module: ir.Module) -> Iterator[tuple[str, _Place, int]]:
    """Yield (key, place, rank) of every tensor that a plan may lay out."""
    operations = main_function(module).regions[0].blocks[0].operations
    for number, (key, view) in enumerate(zip(operation_keys(module), operations, strict=True)):
        for place, value in enumerate(view.operation.results):
            if isinstance(value.type, ir.RankedTensorType):
                suffix = f":{place}" if place else ""
                yield key + suffix, (number, -1, place), value.type.rank
        for place, value in enumerate(view.operation.operands):
            if isinstance(value.type, ir.RankedTensorType):
                yield f"{key}:in{place}", (number, place, -1), ir.RankedTensorType(value.type).rank


def value_types(module: ir.Module) -> dict[str, str]:
    """Return the type of every result by its key, for people to choose from."""
    operations = main_function(module).regions[0].blocks[0].operations
    return {
        key: str(operations[number].operation.results[result].type)
        for key, (number, _, result), _ in value_keys(module)
        if result >= 0
    }


def values_from_constraints(
    module: ir.Module, constraints: Iterable[Constraint]
) -> tuple[_Entry, ...]:
    """Return constraints as entries of a plan, like ones of repeated layers as one glob.

    Args:
        module: the simplified module that was searched.
        constraints: what ``intra.solve_intra`` found.
    """
    keys = {place: key for key, place, _ in value_keys(module)}
    entries = []
    for item in constraints:
        key = keys[item.operation, item.operand, item.result]
        for step, sharding in enumerate(item.shardings):
            suffix = _THEN * step + _AGAIN * item.again
            entries.append((key + suffix, TensorLayout(sharding)))
    return fold_entries(entries, [key for key, _, _ in value_keys(module)])


def fold_entries(entries: Sequence[_Entry], known: Sequence[str]) -> tuple[_Entry, ...]:
    """Return entries whose keys differ only in numbers, and that are laid out alike, as one.

    Args:
        entries: keys and layouts.
        known: all keys of the module; a glob may match none that is not in ``entries``.
    """
    groups: dict[tuple[str, TensorLayout], list[str]] = defaultdict(list)
    for key, layout in entries:
        groups[fold_name(key), layout].append(key)
    out = []
    for (_, layout), keys in groups.items():
        glob, suffix = _split(fold_names(keys))
        matched = {key + suffix for key in fnmatch.filter(known, _escape(glob))}
        folds = len(keys) > 1 and matched == set(keys)
        out += [(_escape(key), layout) for key in ([glob + suffix] if folds else keys)]
    return tuple(out)


def _split(key: str) -> tuple[str, str]:
    """Return the key of a value, and what is behind it: ``:then``, ``:again``."""
    end = "/" if key.startswith("/") and key.endswith("/") else ""
    plain = key.removesuffix("/") if end else key
    match = re.fullmatch(rf"(.*?)((?:{_THEN})*(?:{_AGAIN})?)", plain, re.DOTALL)
    return (match[1] + end, match[2]) if match else (key, "")


def _escape(key: str) -> str:
    """Return a glob that takes the brackets of names as they are."""
    return key.replace("[", "[[]").replace("?", "[?]")


def values_to_constraints(module: ir.Module, values: Sequence[_Entry]) -> list[Constraint]:
    """Return what a plan says of values as constraints; of several that match, the first counts.

    Raises:
        InvalidSharding: when a key matches nothing, or its layout has another rank.
    """
    universe = list(value_keys(module))
    out: dict[_Place, dict[int, TensorLayout]] = defaultdict(dict)
    again = set()
    for key, layout in values:
        plain, suffix = _split(key)
        found = [entry for entry in universe if matches(plain, entry[0])]
        _check(key, layout, found)
        for _, place, _ in found:
            out[place].setdefault(suffix.count(_THEN), layout)
            if suffix.endswith(_AGAIN):
                again.add(place)
    return [
        Constraint(*place, tuple(steps[step].sharding for step in sorted(steps)), place in again)
        for place, steps in sorted(out.items())
    ]


def _check(key: str, layout: TensorLayout, found: Sequence[tuple[str, _Place, int]]) -> None:
    if not found:
        hint = "pai-plan values MODEL lists the keys"
        raise InvalidSharding(f"no value of the program has the key '{key}'", hint=hint)
    for name, _, rank in found:
        if rank != len(layout.sharding.dims):
            raise InvalidSharding(
                f"the plan gives {len(layout.sharding.dims)} dimensions but '{name}' has {rank}",
                hint="give one string for each dimension, '' where it is not sharded",
            )


def check_values(file: PlanFile, module: ir.Module) -> None:
    """Check ``[values]`` against the program; raises InvalidSharding with file and line."""
    universe = list(value_keys(module)) if file.plan.values else []
    for key, layout in file.plan.values:
        try:
            plain = _split(key)[0]
            _check(key, layout, [entry for entry in universe if matches(plain, entry[0])])
        except InvalidSharding as error:
            raise file.error(("values", key), error.what, error.hint) from error
