"""Training steps of models at published sizes, for the search: StableHLO, nothing allocated.

GPT, the mixture of experts and the wide ResNet are of the sizes that Alpa (L. Zheng et al., OSDI
2022) trains on V100 hosts with 25 Gb/s between them; the others are on H100 hosts. All steps have
AdamW; parameters in 16 bits have a master copy in 32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks import load_package
from pai.dialects.mlir import context, ir, parse
from pai.dialects.program import Role
from pai.passes.partition.fold_graph import RESULT_BITS
from pai.passes.simplify import simplify
from pai.passes.strategy.annotate import main_function
from pai.passes.strategy.hybrid import HybridOptions
from pai.passes.strategy.hybrid_point import Hybrid
from pai.passes.strategy.intra.inner import Inner, inner_search
from pai.passes.strategy.intra.problem import Problem
from pai.passes.strategy.memory import State
from pai.passes.strategy.step_plan import MOST_CONTEXT
from pai.passes.strategy.tensor_parallel import split_weights
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec, load_cluster

XLA_SHARE = 0.9
"""Part of a V100's 16 GiB that XLA's allocator takes by default (as ``published/alpa.py``)."""


@dataclass(frozen=True)
class ModelCase:
    """A model to train.

    Args:
        name: shown.
        model: a module of ``tests/models``.
        config: makes its Config of a module.
        batch: samples of a step.
        profile: cluster.
        devices: how many.
        state: bytes of training state of a parameter.
        share: part of a device's memory that a plan may fill.
        hand: published plans by name.
    """

    name: str
    model: str
    config: Callable[[Any], Any]
    batch: int
    profile: str
    devices: int
    state: State = field(default_factory=State)
    share: float = 1.0
    hand: Mapping[str, Hybrid] = field(default_factory=dict)

    @property
    def cluster(self) -> ClusterSpec:
        """The devices."""
        return load_cluster(self.profile, self.devices)

    @property
    def options(self) -> HybridOptions:
        """What the search tries; how many experts there are the program says."""
        return HybridOptions(state=self.state, memory_share=self.share, context=MOST_CONTEXT)


F32 = State(4, 4, 8)
V100, H100 = "v100-16g-p3", "h100-sxm"


def _gpt(layers: int, width: int, heads: int) -> Callable[[Any], Any]:
    return lambda m: m.Config(layers, width, heads, 4 * width, 51200, 1024, "float16")


def _alpa(stages: int, replicas: int, tensor: int, micro: int, count: int) -> dict[str, Hybrid]:
    zero = 2 if replicas > 1 else 0
    point = Hybrid(stages, 1, tensor, replicas, micro, count, zero, "full")
    return {"Alpa's plan": point}


def _deepseek(
    stages: int, replicas: int, experts: int, count: int, how: str, micro: int = 1
) -> dict[str, Hybrid]:
    """Return stages, and experts spread beside the batch; no tensor parallelism, ZeRO-1.

    DeepSeek-AI, "DeepSeek-V3 Technical Report", 2024, §3.2: 16 stages, 64-way expert parallelism,
    gradients by weights in the pipeline's gaps.
    """
    point = Hybrid(
        stages, 1, 1, replicas, micro * experts, count, 1, how,
        zero_bubble=stages > 1, context=experts,
    )  # fmt: skip
    return {"DeepSeek-style": point}


def _context(tensor: int, context: int, count: int, how: str) -> dict[str, Hybrid]:
    """Return Megatron's tensor and context parallelism with ZeRO-1 over what is left.

    The Llama 3 Herd of Models (2024), §3.3.2: 8-way tensor, 16-way context parallelism at 131,072
    tokens.
    """
    point = Hybrid(1, 1, tensor, 64 // tensor // context, 1, count, 1, how, context=context)
    return {"tensor and context": point}


MODELS = (
    ModelCase(
        "GPT 6.7B", "gpt2", _gpt(32, 4096, 32), 1024, V100, 16,
        share=XLA_SHARE, hand=_alpa(2, 2, 4, 8, 64),
    ),
    ModelCase(
        "GPT 39B", "gpt2", _gpt(48, 8192, 64), 1024, V100, 64,
        share=XLA_SHARE, hand=_alpa(16, 1, 4, 1, 1024),
    ),
    ModelCase(
        "MoE 10B, 32 experts", "moe",
        lambda m: m.Config(16, 1536, 16, 6144, 32, 2, 1.25, 32000, 1024, 0.01, "float16"),
        1024, V100, 16, share=XLA_SHARE, hand=_deepseek(2, 1, 8, 128, "full"),
    ),
    ModelCase(
        "MoE 470B, 256 experts", "moe",
        lambda m: m.Config(61, 7168, 128, 2048, 256, 8, 1.25, 129280, 4096, 0.01, "bfloat16"),
        4096, H100, 1024, hand=_deepseek(16, 1, 64, 64, "full"),
    ),
    ModelCase(
        "Wide-ResNet-50 2.4B", "resnet", lambda m: m.Config((3, 4, 6, 3), 640),
        1536, V100, 16, F32, XLA_SHARE,
    ),
    ModelCase(
        "T5 9B", "t5", lambda m: m.Config(24, 4096, 64, 10240, 32128, 512, 512, dtype="bfloat16"),
        2048, H100, 64,
    ),
    ModelCase(
        "Llama-3 8B, 128k tokens", "llama", lambda m: m.Config(sequence=131072, dtype="bfloat16"),
        32, H100, 64, hand=_context(8, 8, 32, "none"),
    ),
    ModelCase(
        "ViT 22B", "vit", lambda m: m.Config(48, 6144, 48, 24576, 224, 14, 1000, "bfloat16"),
        4096, H100, 256,
    ),
    ModelCase("DLRM 6.7B", "dlrm", lambda m: m.Config(), 65536, H100, 16, F32),
)  # fmt: skip


@dataclass(frozen=True)
class ReadModel:
    """A model as the search reads it.

    Args:
        case: what it is.
        module: its StableHLO; operations live as long as it does.
        inner: the inner level.
        parameters: elements.
    """

    case: ModelCase
    module: ir.Module
    inner: Inner
    parameters: int


def read_model(case: ModelCase) -> ReadModel:
    """Lower a model's training step with JAX and read it for the inner level."""
    load_package("tests/models", "jax_models")
    from jax_models import layouts, program  # noqa: PLC0415

    config = case.config(layouts.load(case.model))
    module = parse(program.step_text(case.model, config, case.batch), case.model, context())
    signature = program.sign(module, case.model, config)
    simplify(module)
    inner = inner_search(module, signature, case.cluster)
    sizes = [math.prod(v.shape) for v in signature.arguments if v.role is Role.PARAMETER]
    return ReadModel(case, module, inner, sum(sizes))


@dataclass
class Megatron(Inner):
    """The inner level with weights split in Megatron's pairs of columns and rows, or not at all.

    Everything else is chosen as ever, so this is no worse than writing it by hand.

    Args:
        dims: the dimension that is split, by argument.
    """

    dims: Mapping[int, int] = field(default_factory=dict)

    def problem(self, share: float, mesh: Mesh, *, by_sample: bool) -> Problem:
        """Return what is solved for a part of the batch."""
        problem = super().problem(share, mesh, by_sample=by_sample)
        for place, dim in self.dims.items():
            value = self.lowered.merged.folded.classes[place] << RESULT_BITS
            if self.lowered.merged.group(value) in self.lowered.clusters:
                node = problem.nodes[self.lowered.node_of(value)]
                kept = self.lowered.value_factors(value)[dim]
                node.fixed |= set(range(len(node.sizes))) - {kept}
        return problem

    def solved_for(self, tensor: int, context: int = 1) -> tuple[int, int]:
        """Return the same sizes."""
        return tensor, context


def megatron(read: ReadModel) -> tuple[Megatron, HybridOptions]:
    """Return Megatron's split of a model, and the options that its users have.

    Shards inside a host, pipelines with or without chunks, ZeRO-1 at most, every layer recomputed
    or none.
    """
    inner, arguments = read.inner, read.inner.signature.arguments
    block = main_function(read.module).regions[0].blocks[0]
    host = inner.cluster.hosts[0].devices
    found = split_weights(
        block,
        lambda i: arguments[i].role is Role.PARAMETER and len(arguments[i].shape) > 1,
        host,
        vocabulary=True,
    )
    split = Megatron(
        inner.lowered, inner.signature, inner.cluster, inner.batch, inner.limits, (1, 4), found.dims
    )
    options = replace(
        read.case.options,
        tensor=host, zero=(0, 1), zero_bubble=False, recompute=("none", "full"), context=1,
    )  # fmt: skip
    return split, options
