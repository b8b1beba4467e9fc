"""Products and convolutions of the CPU code generator against OpenBLAS and oneDNN, one thread.

    python -m benchmarks.kernels [--target cpu:x86-64-v3] [--rounds N] [--json]

Each row is one shape in f32. Our kernel and its peer (``numpy.matmul``, ``torch``'s conv2d) run in
turns in one process; the best time of the rounds counts, for both. GFLOP/s counts a multiply and an
add as two. Shapes are those of MiniLM (sequence 128), BERT's feed-forward layer, single-row
decoding, and the convolutions of ResNet-50 and of a mobile text recognizer.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy loads OpenBLAS

import numpy as np

from pai.compiler.codegen.cpu import conv, dot  # noqa: F401  (they register their emitters)
from pai.compiler.codegen.cpu.emit import emit_kernel
from pai.compiler.codegen.cpu.target import parse_target
from pai.compiler.codegen.cpu.toolchain import compile_text
from pai.dialects.mlir import parse
from pai.runtime import _core

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_SECONDS = 0.02  # of work a side in one round

# m, k, n, and whether B lies as [n, k]
DOTS = [
    (128, 384, 384, False),
    (128, 384, 1536, False),
    (128, 1536, 384, False),
    (128, 384, 1536, True),
    (512, 768, 3072, False),
    (1024, 1024, 1024, False),
    (40, 512, 6625, False),
    (4, 768, 3072, False),
    (1, 768, 3072, False),
    (1, 768, 3072, True),
]
# channels, height, width, output channels, window, stride, groups
CONVS = [
    (3, 48, 320, 16, 3, 2, 1),
    (64, 12, 160, 128, 1, 1, 1),
    (480, 6, 80, 480, 1, 1, 1),
    (64, 56, 56, 64, 3, 1, 1),
    (128, 28, 28, 128, 3, 1, 1),
    (256, 14, 14, 256, 3, 1, 1),
    (64, 56, 56, 128, 3, 2, 1),
    (64, 24, 160, 64, 3, 1, 64),
    (256, 3, 80, 256, 5, 1, 256),
]


@dataclass(frozen=True)
class Row:
    """One shape: its name, both speeds in GFLOP/s, and the largest difference of the results."""

    name: str
    ours: float
    peer: float
    error: float


def aligned(shape: Sequence[int]) -> np.ndarray:
    """Return zeros at an address that is a multiple of 64."""
    size = 4 * int(np.prod(shape))
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.float32).reshape(shape)


def load(text: str, arrays: Sequence[np.ndarray], target: str) -> Callable[[], None]:
    """Compile the only function of a module and return a call of it on these arrays."""
    chosen = parse_target(target)
    module = parse(text)
    source = emit_kernel(module.body.operations[0], chosen)
    image = _core.load_image([("kernel.o", compile_text(source.text, chosen))])
    entry = _ENTRY(image.symbol(0, source.symbol))
    scratch = aligned((source.scratch_bytes // 4 + 16,))
    pointers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
    address = ctypes.addressof(pointers)

    def run(held: object = (image, pointers, arrays)) -> None:
        entry(address, 0, source.grid, scratch.ctypes.data)

    return run


def compare(
    name: str,
    flops: float,
    ours: Callable[[], None],
    peer: Callable[[], np.ndarray],
    result: np.ndarray,
    rounds: int,
) -> Row:
    """Time both sides in turns."""
    best = [float("inf"), float("inf")]
    ours()
    error = float(np.abs(result - peer()).max())
    count = max(1, round(_SECONDS * 3e10 / flops))
    for _ in range(rounds):
        for side, call in enumerate((ours, peer)):
            start = time.perf_counter()
            for _ in range(count):
                call()
            best[side] = min(best[side], (time.perf_counter() - start) / count)
    return Row(name, flops / best[0] / 1e9, flops / best[1] / 1e9, error)


def random(shape: Sequence[int]) -> np.ndarray:
    """Return aligned random numbers."""
    array = aligned(shape)
    array[...] = np.random.default_rng(0).standard_normal(shape)
    return array


def tensor(shape: Sequence[int]) -> str:
    """Spell a type."""
    return f"tensor<{'x'.join(map(str, shape))}xf32>"


def dot_row(m: int, k: int, n: int, by_rows: bool, target: str, rounds: int) -> Row:
    """Measure one product."""
    a, b, c = random((m, k)), random((n, k) if by_rows else (k, n)), aligned((m, n))
    types = [tensor(x.shape) for x in (a, b, c)]
    text = f"""func.func @f(%a: {types[0]}, %b: {types[1]}) -> {types[2]} attributes
      {{pai.kernel = "dot"}} {{
      %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [{int(by_rows)}]
        : ({types[0]}, {types[1]}) -> {types[2]}
      return %0 : {types[2]} }}"""
    right = b.T if by_rows else b
    name = f"dot {m}x{k}x{n}{' by rows' if by_rows else ''}"
    return compare(
        name, 2.0 * m * k * n, load(text, [a, b, c], target), lambda: a @ right, c, rounds
    )


def conv_row(
    channels: int,
    height: int,
    width: int,
    outputs: int,
    window: int,
    stride: int,
    groups: int,
    target: str,
    rounds: int,
) -> Row:
    """Measure one convolution, channels first, padded to keep its size (over the stride)."""
    import torch  # noqa: PLC0415  (an optional peer)

    torch.set_num_threads(1)
    pad = window // 2
    x = random((1, channels, height, width))
    w = random((outputs, channels // groups, window, window))
    out = [(s + 2 * pad - window) // stride + 1 for s in (height, width)]
    y = aligned((1, outputs, *out))
    types = [tensor(v.shape) for v in (x, w, y)]
    text = f"""func.func @f(%x: {types[0]}, %w: {types[1]}) -> {types[2]} attributes
      {{pai.kernel = "conv"}} {{
      %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, f, 0, 1]x[o, i, 0, 1]->[b, f, 0, 1],
        window = {{stride = [{stride}, {stride}], pad = [[{pad}, {pad}], [{pad}, {pad}]]}}
        {{batch_group_count = 1 : i64, feature_group_count = {groups} : i64}}
        : ({types[0]}, {types[1]}) -> {types[2]}
      return %0 : {types[2]} }}"""
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)

    def peer() -> np.ndarray:
        with torch.no_grad():
            options = {"stride": stride, "padding": pad, "groups": groups}
            return torch.nn.functional.conv2d(tx, tw, **options).numpy()

    flops = 2.0 * y.size * window * window * channels / groups
    name = f"conv {channels}x{height}x{width} -> {outputs}, {window}x{window}/{stride}, g{groups}"
    return compare(name, flops, load(text, [x, w, y], target), peer, y, rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [dot_row(*shape, options.target, options.rounds) for shape in DOTS]
    rows += [conv_row(*shape, options.target, options.rounds) for shape in CONVS]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print(f"{'GFLOP/s, one thread, ' + options.target:48} {'ours':>7} {'peer':>7} {'ratio':>6}")
    for row in rows:
        print(f"{row.name:48} {row.ours:7.1f} {row.peer:7.1f} {row.ours / row.peer:6.2f}")


if __name__ == "__main__":
    main()
