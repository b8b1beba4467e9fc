"""Bind the open dimensions of the arguments: ``--shape ARGUMENT:8,3``."""

from __future__ import annotations

from collections.abc import Sequence

from pai.dialects.mlir import ir, run_pipeline
from pai.frontends.stablehlo.signature import argument_names
from pai.passes.rewrite import main_function
from pai.passes.simplify.inline import Inline
from pai.runtime.errors import InvalidShape


def bind_shapes(module: ir.Module, shapes: Sequence[str], source: str) -> None:
    """Give the arguments of ``@main`` static shapes and carry them through the program.

    Args:
        module: changed in place; calls are inlined when a shape is bound.
        shapes: ``NAME:d0,d1`` for arguments, by name or as ``argN``.
        source: file name for messages.

    Raises:
        InvalidShape: for an unknown argument, a shape that contradicts its type, or a dimension
            that stays open.
    """
    main = main_function(module)
    names = argument_names(main)
    types = list(main.type.inputs)
    bound = list(types)
    for text in shapes:
        index, shape = _parse_binding(text, names, types, source)
        bound[index] = _bind(types[index], shape, names[index], source)
    still_open = [
        f"{name}: {type_}"
        for name, type_ in zip(names, bound, strict=True)
        if isinstance(type_, ir.ShapedType) and not (type_.has_rank and type_.has_static_shape)
    ]
    if still_open:
        raise InvalidShape(
            f"open dimensions in the arguments {'; '.join(still_open)}",
            source,
            f"give each a shape, such as --shape {still_open[0].partition(':')[0]}:8,3",
        )
    if bound != types:
        _set_argument_types(module, bound)


def _parse_binding(
    text: str, names: Sequence[str], types: Sequence[ir.Type], source: str
) -> tuple[int, tuple[int, ...]]:
    name, colon, dims = text.rpartition(":")
    try:
        shape = tuple(int(d) for d in dims.split(",")) if dims else ()
    except ValueError:
        colon, shape = "", ()
    if not colon:
        raise InvalidShape(
            f"'{text}' is not of the form ARGUMENT:8,3",
            source,
            "StableHLO does not name its dimensions; the arguments are "
            + "; ".join(f"{n}: {t}" for n, t in zip(names, types, strict=True)),
        )
    candidates = {
        **{f"arg{i}": i for i in range(len(names))},
        **{n: i for i, n in enumerate(names)},
    }
    if name not in candidates:
        raise InvalidShape(f"there is no argument '{name}'", source, f"it has {', '.join(names)}")
    return candidates[name], shape


def _bind(type_: ir.Type, shape: tuple[int, ...], name: str, source: str) -> ir.Type:
    fits = isinstance(type_, ir.ShapedType)
    if fits and type_.has_rank:
        fits = type_.rank == len(shape) and all(
            type_.is_dynamic_dim(i) or type_.get_dim_size(i) == d for i, d in enumerate(shape)
        )
    if not fits or any(size < 0 for size in shape):
        raise InvalidShape(f"argument '{name}' is {type_} and cannot be {shape}", source)
    with type_.context, ir.Location.unknown(type_.context):
        return ir.RankedTensorType.get(list(shape), type_.element_type)


def _set_argument_types(module: ir.Module, types: Sequence[ir.Type]) -> None:
    Inline().run(module)
    main = main_function(module)
    block = main.regions[0].blocks[0]
    for argument, type_ in zip(block.arguments, types, strict=True):
        argument.set_type(type_)
    with module.context:
        function_type = ir.FunctionType.get(list(types), main.type.results)
        main.attributes["function_type"] = ir.TypeAttr.get(function_type)
    run_pipeline(module, "stablehlo-refine-shapes,func.func(stablehlo-canonicalize-dynamism)")
