"""convolution with all its attributes, and its gradients."""

from __future__ import annotations

import re
from random import Random

import jax
import jax.numpy as jnp
from jax import lax

from generate.draw import BF16, F16, F32, F64, Program, chance, permutation, values


def convolution(pick: Random) -> Program:
    """Draw sizes, strides, padding (negative too), dilations, groups and layouts."""
    spatial = pick.choice([0, 1, 1, 2, 2, 3])
    kernel = [pick.choice([1, 2, 3, 3, 4]) for _ in range(spatial)]
    image = [pick.choice([3, 4, 5, 6, 8, 9, 12, 16] if spatial < 3 else [3, 4, 6]) for _ in kernel]
    strides = [pick.choice([1, 1, 1, 2, 3]) for _ in kernel]
    dilation = [pick.choice([1, 1, 1, 2]) for _ in kernel]
    base = [pick.choice([1, 1, 1, 1, 2, 3]) for _ in kernel]
    padding = [_padding(pick, k, d) for k, d in zip(kernel, dilation, strict=True)]
    groups = pick.choice([1, 1, 1, 2, 3, 4, 6])
    by_batch = groups > 1 and chance(pick, 0.4)
    features = pick.choice([1, 2, 3]) * (1 if by_batch else groups)
    if not by_batch and groups > 1 and chance(pick, 0.4):
        features = groups  # depthwise
    batch = pick.choice([1, 2, 3, 4]) * (groups if by_batch else 1)
    outputs = pick.choice([1, 2, 3]) * groups
    lhs = [batch, features, *image]
    rhs = [outputs, features if by_batch else features // groups, *kernel]
    specs = [permutation(pick, spatial + 2) for _ in range(3)]
    if chance(pick, 0.6):
        specs = [[0, *range(2, spatial + 2), 1], [*range(2, spatial + 2), 1, 0]]
        specs.append(specs[0])
    # A spec lists where batch, feature and the spatial dimensions are.
    where = [tuple(spec.index(i) for i in range(spatial + 2)) for spec in specs]
    numbers = lax.ConvDimensionNumbers(*where)
    grad = chance(pick, 0.3)
    dtype = F32 if grad else pick.choice([F32, F32, F32, F64, BF16, F16])

    def convolve(x, w):
        return lax.conv_general_dilated(
            x,
            w,
            strides,
            padding,
            base,
            dilation,
            numbers,
            feature_group_count=1 if by_batch else groups,
            batch_group_count=groups if by_batch else 1,
        )

    def gradients(x, w):
        return jax.grad(lambda a, b: jnp.sum(convolve(a, b) ** 2), (0, 1))(x, w)

    arrays = [
        values(pick, [shape[i] for i in spec], dtype)
        for shape, spec in zip((lhs, rhs), specs, strict=False)
    ]
    flips = [chance(pick, 0.5) for _ in kernel] if chance(pick, 0.15) else []
    note = (
        f"image {lhs} kernel {rhs} pad {padding} stride {strides} base {base} dilation {dilation}"
    )
    return Program(
        gradients if grad else convolve,
        arrays,
        f"{note} groups {groups} by batch {by_batch} grad {grad} reverse {flips}",
        rewrite=_reversing(flips) if flips and not grad else None,
        tolerance=1e-4 if dtype == F32 else None,
    )


def _padding(pick: Random, kernel: int, dilation: int) -> tuple[int, int]:
    extent = (kernel - 1) * dilation
    return pick.choice(
        [
            (0, 0),
            (extent // 2, extent - extent // 2),
            (extent, extent),
            (pick.randint(-2, 3), pick.randint(-2, 3)),
        ]
    )


def _reversing(flips: list[bool]):
    """Set window_reversal, which JAX cannot say."""
    text = "reverse = [" + ", ".join(str(flip).lower() for flip in flips) + "]"

    def rewrite(module: str) -> str:
        module = re.sub(r"(, )?reverse = \[[^\]]*\]", "", module)
        return re.sub(
            r"window = \{([^}]*)\}",
            lambda m: f"window = {{{m[1] + ', ' if m[1] else ''}{text}}}",
            module,
        )

    return rewrite
