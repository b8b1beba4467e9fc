"""How each family of operations is localized; importing a family registers its handlers."""

from pai.passes.partition.handlers import (  # noqa: F401
    batched,
    convolution,
    custom_calls,
    dynamic,
    elementwise,
    indexing,
    joining,
    linear,
    manual,
    moving,
    picking,
    pooling,
    reductions,
    scattering,
    shapes,
)
from pai.passes.partition.handlers.base import HANDLERS, REPLICATE, Handler, Site

__all__ = ["HANDLERS", "REPLICATE", "Handler", "Site"]
