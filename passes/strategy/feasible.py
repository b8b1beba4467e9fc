"""What to change, and by how much, when no plan fits the memory: the smallest change first."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pai.dialects.program import Role, Signature
from pai.passes.strategy.plan import Prediction
from pai.passes.strategy.units import bytes_text
from pai.runtime.topology import ClusterSpec
from pai.runtime.topology_toml import profile_names, read_cluster

NARROWER = {"f64": "f32", "f32": "bf16", "f16": "f8E4M3FN", "bf16": "f8E4M3FN"}
_WIDTHS = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2, "f8E4M3FN": 1}


def nearest_changes(
    need: Prediction,
    signature: Signature,
    cluster: ClusterSpec,
    devices: int | None,
    batch_shards: int = 1,
) -> str:
    """Return the changes that make a program fit, in words, the smallest first.

    Args:
        need: the plan with the least memory.
        signature: the program's arguments.
        cluster: the devices, which are too small.
        devices: a number of such devices that is enough by estimate; None when not known.
        batch_shards: parts in which that plan splits the batch; each keeps one sample at least.
    """
    found = [
        *_devices(cluster, devices),
        *_memory(need, cluster),
        *_batch(need, signature, cluster.memory_bytes, batch_shards),
        *_precision(need, signature, cluster.memory_bytes),
    ]
    texts = [text for _, text in sorted(found)]
    return "it would fit with " + ", or ".join(texts)


def _devices(cluster: ClusterSpec, devices: int | None) -> Iterator[tuple[float, str]]:
    if devices is not None:
        text = f"{devices} such devices by estimate (--devices {devices})"
        yield devices / cluster.num_devices, text


def _memory(need: Prediction, cluster: ClusterSpec) -> Iterator[tuple[float, str]]:
    """Yield the memory that is missing, and the smallest profile that has as much."""
    wanted = need.memory_bytes
    text = f"devices of {bytes_text(wanted)}"
    larger = [
        (read_cluster(name).memory_bytes, name)
        for name in profile_names()
        if name not in {"cpu", cluster.name} and read_cluster(name).memory_bytes >= wanted
    ]
    if larger:
        size, name = min(larger)
        text += f" ({name} has {bytes_text(size)})"
    yield wanted / cluster.memory_bytes, text


def _batch(
    need: Prediction, signature: Signature, limit: int, shards: int
) -> Iterator[tuple[float, str]]:
    """Yield the batch that fits; inputs, outputs and values in between shrink with it."""
    fixed = need.parameter_bytes + need.state_bytes + need.gradient_bytes
    moving = need.memory_bytes - fixed
    sizes = {
        value.shape[0] for value in signature.arguments if value.role is Role.INPUT and value.shape
    }
    if len(sizes) == 1 and moving > 0:
        batch = sizes.pop()
        each = math.ceil(batch / shards)
        fits = int(each * (limit - fixed) / moving)
        if 1 <= fits < each:
            yield each / fits, f"a batch of {fits * shards} instead of {batch}"


def _precision(need: Prediction, signature: Signature, limit: int) -> Iterator[tuple[float, str]]:
    """Yield a narrower type of the parameters that is enough by itself."""
    dtypes = {value.dtype for value in signature.arguments if value.role is Role.PARAMETER}
    floats = [dtype for dtype in dtypes if dtype in NARROWER]
    if len(floats) != 1:
        return
    narrow = NARROWER[floats[0]]
    ratio = _WIDTHS[floats[0]] / _WIDTHS[narrow]
    if need.memory_bytes - need.parameter_bytes * (1 - 1 / ratio) <= limit:
        yield ratio, f"parameters of {narrow} instead of {floats[0]}"
