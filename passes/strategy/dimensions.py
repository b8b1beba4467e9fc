"""A transformer's dimensions, the kernels of the program that trains it, and its hand split."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Transformer:
    """A decoder's dimensions.

    Args:
        layers: transformer layers.
        hidden: elements of a token.
        heads: query heads.
        vocab: entries of the vocabulary.
        seq: tokens of a sequence.
        kv_heads: key heads; 0 is ``heads``.
        ffn: inner elements of the MLP; 0 is 4 times ``hidden``.
        gated: whether the MLP has two input products (SwiGLU).
        biases: whether products have biases and norms two vectors.
        positions: whether there are learned positions; otherwise rotary ones.
        tied: whether the head uses the embedding's table.
    """

    layers: int
    hidden: int
    heads: int
    vocab: int
    seq: int
    kv_heads: int = 0
    ffn: int = 0
    gated: bool = False
    biases: bool = True
    positions: bool = True
    tied: bool = True

    @property
    def head_size(self) -> int:
        """Elements of a head."""
        return self.hidden // self.heads

    @property
    def qkv(self) -> int:
        """Columns of the joint projection to queries, keys and values."""
        return (self.heads + 2 * (self.kv_heads or self.heads)) * self.head_size

    @property
    def inner(self) -> int:
        """Inner elements of the MLP."""
        return self.ffn or 4 * self.hidden

    @property
    def layer_parameters(self) -> int:
        """Elements of one layer's parameters."""
        ups = 2 if self.gated else 1
        matrices = self.hidden * (self.qkv + self.hidden + (ups + 1) * self.inner)
        vectors = self.qkv + 2 * self.hidden + ups * self.inner if self.biases else 0
        return matrices + vectors + (4 if self.biases else 2) * self.hidden

    @property
    def parameters(self) -> int:
        """Elements of all parameters."""
        tables = self.vocab * (1 if self.tied else 2) + (self.seq if self.positions else 0)
        norm = (2 if self.biases else 1) * self.hidden
        return self.layers * self.layer_parameters + tables * self.hidden + norm


@dataclass(frozen=True)
class Stack:
    """Which kernels a training program has.

    Args:
        dtype: element type of activations and products.
        fused_attention: whether scores stay out of memory, and masked ones are skipped.
        fused_elementwise: whether bias, activation, dropout and residual are one kernel each.
        dropout: whether it drops elements (and keeps masks of a byte).
        norm_traffic: bytes read and written for an element of 2 by a norm, forward; 2.5 times as
            many backward. One kernel reads and writes once; a chain of f32 kernels (cast, square,
            mean, scale, cast, weight) moves 36.
        loss_bytes: bytes read and written for a logit, forward and backward.
        loss_peak: bytes alive for a logit at the peak of the loss: log-probabilities, the
            gradient by them and the one by logits in f32.
        attention_speed: speed of the fused attention relative to the one calibrated.
        product_dtype: element type of the weights' products; "" is ``dtype``.
        early_stop: whether full recompute stops before the layer's last product, which nothing
            needs again (PyTorch's non-reentrant checkpoint from 2.1).
        overlap_tensor: which tensor-parallel exchanges run beside products: none of them,
            ``gradients`` (of inputs, beside the products of weight gradients: Megatron-LM from
            3.0), or ``all`` (in pieces beside the products they belong to: Transformer Engine).
    """

    dtype: str = "bf16"
    fused_attention: bool = True
    fused_elementwise: bool = False
    dropout: bool = False
    norm_traffic: float = 4.0
    loss_bytes: float = 36.0
    loss_peak: float = 12.0
    attention_speed: float = 1.0
    product_dtype: str = ""
    early_stop: bool = False
    overlap_tensor: str = ""


@dataclass(frozen=True)
class Split:
    """How one model is spread inside a data-parallel replica's stage.

    Args:
        tensor: devices that share each layer (Megatron's column and row pairs).
        context: devices that share each sequence.
        sequence_parallel: whether norms and residuals are split over ``tensor`` too.
    """

    tensor: int = 1
    context: int = 1
    sequence_parallel: bool = False
