"""The processor that kernels are made for: a named level of x86-64, or this machine."""

from __future__ import annotations

from dataclasses import dataclass

from pai.runtime.cpu import host_features
from pai.runtime.errors import PaiError

# The levels of the x86-64 psABI, in LLVM's feature names; each includes the ones before it.
_ADDED: dict[str, tuple[str, ...]] = {
    "x86-64-v2": ("sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "cx16", "sahf", "popcnt"),
    "x86-64-v3": ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}
_VECTOR_BITS = {"x86-64-v2": 128, "x86-64-v3": 256, "x86-64-v4": 512}
LEVELS = tuple(_ADDED)


@dataclass(frozen=True)
class CpuTarget:
    """One kind of processor.

    Args:
        level: psABI level the code is made for; also LLVM's name of the processor.
        features: what a machine must have, in LLVM's names, sorted.
        vector_bits: width of the vectors that kernels use.
        arch: always ``x86_64``.
        host: the features are those of the machine that compiled, beyond the level.
    """

    level: str
    features: tuple[str, ...]
    vector_bits: int
    arch: str = "x86_64"
    host: bool = False

    @property
    def registers(self) -> int:
        """Number of vector registers."""
        return 32 if self.vector_bits == 512 else 16

    def lanes(self, bits: int) -> int:
        """Return how many elements of ``bits`` bits one vector holds."""
        return self.vector_bits // bits

    @property
    def key(self) -> str:
        """Everything about the target that generated code depends on, as text."""
        return f"{self.arch} {self.level} {self.vector_bits} {','.join(self.features)}"


def level_features(level: str) -> tuple[str, ...]:
    """Return all features of a level, sorted, in LLVM's names."""
    names = LEVELS[: LEVELS.index(level) + 1]
    return tuple(sorted(feature for name in names for feature in _ADDED[name]))


def host_level() -> str:
    """Return the highest level that this machine has.

    Raises:
        PaiError: on a machine that is not x86-64-v2 or better.
    """
    have = host_features()
    for level in reversed(LEVELS):
        if have.issuperset(level_features(level)):
            return level
    raise PaiError("this machine is not an x86-64 processor with SSE4.2", "target 'cpu'", _hint())


def parse_target(text: str) -> CpuTarget:
    """Read ``cpu`` (the level of this machine), ``cpu:<level>`` or ``cpu:host``.

    ``cpu:host`` uses every feature of this machine; the levels are portable.

    Raises:
        PaiError: for any other text.
    """
    device, _, level = text.partition(":")
    if device != "cpu" or (":" in text and level not in (*LEVELS, "host")):
        raise PaiError("there is no such target", f"target '{text}'", _hint())
    if level == "host":
        base = host_level()
        features = tuple(sorted(host_features()))
        return CpuTarget(base, features, _VECTOR_BITS[base], host=True)
    level = level or host_level()
    return CpuTarget(level, level_features(level), _VECTOR_BITS[level])


def _hint() -> str:
    return f"one of cpu, cpu:host, {', '.join('cpu:' + level for level in LEVELS)}"
