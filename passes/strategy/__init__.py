"""Strategy: choose how a program is laid over a cluster, and say why."""

from __future__ import annotations

from pai.passes.strategy.annotate import annotate
from pai.passes.strategy.load import load_plan
from pai.passes.strategy.search import SearchOptions, choose_plan

__all__ = ["SearchOptions", "annotate", "choose_plan", "load_plan"]
