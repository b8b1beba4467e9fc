"""The table of passes: name to "module:Class"; a pass's module is imported when first used."""

from __future__ import annotations

REGISTRY: dict[str, str] = {}
