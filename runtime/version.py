"""The version of pai-compile, written into packages and kernel caches."""

from __future__ import annotations

VERSION = "0.1.0"
