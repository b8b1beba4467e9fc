"""One transformer layer on one device: its kernels, its exchanges, and what it keeps.

Bytes count what each kernel reads and writes of activations; a mask is a byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from pai.passes.strategy.dimensions import Split, Stack, Transformer
from pai.passes.strategy.kernels import BYTES
from pai.passes.strategy.workload import Attention, Collective, Dot, Recompute, Stream, Task

TENSOR, CONTEXT = "tensor", "context"


@dataclass(frozen=True)
class Layer:
    """Sizes of one layer on one device."""

    model: Transformer
    batch: int
    split: Split
    stack: Stack

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return BYTES[self.stack.dtype]

    @property
    def tokens(self) -> int:
        """Tokens of a microbatch on this device."""
        return self.batch * self.model.seq // self.split.context

    @property
    def token_bytes(self) -> float:
        """Bytes of one activation of ``hidden`` elements a token, whole."""
        return self.tokens * self.model.hidden * self.size

    @property
    def norm_bytes(self) -> float:
        """The same where norms and residuals work."""
        return self.token_bytes / (self.split.tensor if self.split.sequence_parallel else 1)

    @property
    def heads(self) -> int:
        """Query heads on this device."""
        return max(1, self.model.heads // self.split.tensor)

    @property
    def kv_heads(self) -> int:
        """Key heads on this device."""
        return max(1, (self.model.kv_heads or self.model.heads) // self.split.tensor)

    @property
    def scores(self) -> float:
        """Attention scores of one microbatch on this device."""
        return self.batch * self.heads * self.model.seq * self.model.seq / self.split.context

    @property
    def products(self) -> tuple[tuple[int, int], ...]:
        """(columns, contracted) of the layer's weights on this device."""
        model, t = self.model, self.split.tensor
        ups = (model.inner // t,) * (2 if model.gated else 1)
        return (
            (model.qkv // t, model.hidden),
            (model.hidden, model.hidden // t),
            *((up, model.hidden) for up in ups),
            (model.hidden, model.inner // t),
        )

    @property
    def dot_dtype(self) -> str:
        """Element type of the weights' products."""
        return self.stack.product_dtype or self.stack.dtype

    def dots(self) -> tuple[Dot, ...]:
        """The weights' products, forward."""
        return tuple(Dot(self.tokens, n, k, dtype=self.dot_dtype) for n, k in self.products)

    def input_gradients(self) -> tuple[Dot, ...]:
        """Products of gradients and weights."""
        return tuple(Dot(self.tokens, k, n, dtype=self.dot_dtype) for n, k in self.products)

    def weight_gradients(self) -> tuple[Dot, ...]:
        """Products of gradients and inputs."""
        return tuple(Dot(n, k, self.tokens, dtype=self.dot_dtype) for n, k in self.products)

    def casts(self) -> tuple[Stream, ...]:
        """Casts of inputs and weights, with their transposes, to a type of the products' own."""
        elements = sum((self.tokens + n) * k for n, k in self.products)
        return self._casts(elements)

    def casts_backward(self) -> tuple[Stream, ...]:
        """The same of the gradients of the products' results."""
        return self._casts(sum(self.tokens * n for n, _ in self.products))

    def _casts(self, elements: int) -> tuple[Stream, ...]:
        if self.dot_dtype == self.stack.dtype:
            return ()
        moved = self.size + 2 * BYTES[self.dot_dtype]
        return (Stream(elements * moved / len(self.products), len(self.products)),)

    def attention(self) -> tuple[Task, ...]:
        """The core of attention, forward."""
        if self.stack.fused_attention:
            return (self._fused(backward=False),)
        size, scores, seq = self.size, self.scores, self.model.seq
        rows, batch = seq // self.split.context, self.batch * self.heads
        dropout = (Stream(scores * (2 * size + 1)),) if self.stack.dropout else ()
        return (
            Dot(rows, seq, self.model.head_size, batch, self.stack.dtype),
            Stream(scores * 2 * size),
            *dropout,
            Dot(rows, self.model.head_size, seq, batch, self.stack.dtype),
            Stream(2 * self.token_bytes / self.split.tensor, 2),
        )

    def attention_backward(self) -> tuple[Task, ...]:
        """The core of attention, backward."""
        if self.stack.fused_attention:
            return (self._fused(backward=True),)
        size, scores, seq = self.size, self.scores, self.model.seq
        rows, batch, head = seq // self.split.context, self.batch * self.heads, self.model.head_size
        dropout = (Stream(scores * (2 * size + 1)),) if self.stack.dropout else ()
        return (
            Dot(rows, seq, head, batch, self.stack.dtype),
            Dot(seq, head, rows, batch, self.stack.dtype),
            *dropout,
            Stream(scores * 3 * size),
            Dot(rows, head, seq, batch, self.stack.dtype),
            Dot(seq, head, rows, batch, self.stack.dtype),
            Stream(2 * self.token_bytes / self.split.tensor, 2),
        )

    def _fused(self, *, backward: bool) -> Attention:
        causal = self.split.context == 1
        return Attention(
            batch=self.batch * self.heads,
            query=self.model.seq // self.split.context,
            keys=self.model.seq if causal else self.model.seq // 2,
            head=self.model.head_size,
            causal=causal,
            backward=backward,
            dtype=self.stack.dtype,
            kv_batch=self.batch * self.kv_heads,
            speed=self.stack.attention_speed,
        )

    def streams(self) -> tuple[Stream, ...]:
        """Norms, residuals and the activation, forward."""
        inner = self.tokens * self.model.inner / self.split.tensor * self.size
        mask = self.norm_bytes / self.size if self.stack.dropout else 0
        activation = Stream((3 if self.model.gated else 2) * inner)
        rotary = () if self.model.positions else (Stream(self._rotary()),)
        out = (
            Stream(self.norm_bytes * self.stack.norm_traffic / 2, 2),
            Stream(3 * self.norm_bytes + mask, 2),
            activation,
            *rotary,
        )
        if self.model.gated and not self.stack.fused_elementwise:
            out = (*out, Stream(2 * inner))
        return out

    def streams_backward(self) -> tuple[Stream, ...]:
        """The same backward, with the sums of the biases' gradients."""
        inner = self.tokens * self.model.inner / self.split.tensor * self.size
        mask = self.norm_bytes / self.size if self.stack.dropout else 0
        rotary = () if self.model.positions else (Stream(self._rotary()),)
        biases = inner + 4 * self.token_bytes if self.model.biases else 0
        out: tuple[Stream, ...] = (
            Stream(self.norm_bytes * self.stack.norm_traffic * 1.25, 2),
            Stream((3 if not self.stack.dropout else 5) * self.norm_bytes + mask, 2),
            Stream((5 if self.model.gated else 3) * inner),
            *rotary,
        )
        if self.model.gated and not self.stack.fused_elementwise:
            out = (*out, Stream(3 * inner))
        return (*out, Stream(biases / 4, 4)) if biases else out

    def _rotary(self) -> float:
        columns = (self.heads + self.kv_heads) * self.model.head_size
        return 2 * self.tokens * columns * self.size * (1 if self.stack.fused_elementwise else 5)

    def exchange(self) -> tuple[Collective, ...]:
        """What the tensor-parallel pair exchanges in one pass through the layer."""
        return self._exchange(hidden=False, again=False)

    def exchange_backward(self) -> tuple[Collective, ...]:
        """The same for gradients; with sequence parallelism inputs are gathered once more."""
        return self._exchange(hidden=bool(self.stack.overlap_tensor), again=True)

    def _exchange(self, *, hidden: bool, again: bool) -> tuple[Collective, ...]:
        if self.split.tensor == 1:
            return ()
        every = self.stack.overlap_tensor == "all"

        def pair(kind: str, num_bytes: float, hidden: bool) -> Collective:
            return Collective(kind, num_bytes, (TENSOR,), hidden or every, every, 2)

        if not self.split.sequence_parallel:
            return (pair("all_reduce", self.token_bytes, hidden),)
        cast = (
            self.token_bytes / self.size * BYTES[self.dot_dtype]
        )  # operands, as products take them
        out = (
            pair("all_gather", cast, hidden=False),
            pair("reduce_scatter", self.token_bytes, hidden),
        )
        return (*out, pair("all_gather", cast, hidden)) if again else out

    def context_exchange(self) -> tuple[Collective, ...]:
        """Keys and values of the other parts of the sequence."""
        if self.split.context == 1:
            return ()
        columns = 2 * self.kv_heads * self.model.head_size
        whole = self.batch * self.model.seq * columns * self.size
        return (Collective("all_gather", whole, (CONTEXT,), hidden=True),)

    def saved(self) -> float:
        """Bytes kept for the backward pass of one layer (Korthikanti, equations 1 to 4)."""
        t, model = self.split.tensor, self.model
        norms = 4 * self.norm_bytes
        masks = 2 * self.norm_bytes / self.size if self.stack.dropout else 0
        values = 3 if model.gated and not self.stack.fused_elementwise else 2
        inner = self.tokens * model.inner / t * self.size * values
        qkv = self.tokens * model.qkv / t * self.size
        out = self.token_bytes / t
        scores = 0.0
        if not self.stack.fused_attention:
            scores = self.scores * (2 * self.size + 1 if self.stack.dropout else self.size)
        return norms + masks + inner + qkv + out + scores

    def gradients(self) -> float:
        """Bytes of gradients alive inside the layer's backward pass: the MLP's, and its input's."""
        inner = self.tokens * self.model.inner / self.split.tensor * self.size
        return (2 if self.model.gated else 1) * inner + 2 * self.token_bytes

    def recomputes(self) -> tuple[Recompute, ...]:
        """The choices of what to keep."""
        dots = self.dots()[:-1] if self.stack.early_stop else self.dots()
        forward = (*dots, *self.attention(), *self.streams(), *self.casts(), *self.exchange())
        return (
            Recompute("none", self.saved()),
            self.selective(),
            Recompute("full", self.norm_bytes, (*forward, *self.context_exchange())),
        )

    def selective(self) -> Recompute:
        """What takes much memory and little work is done again.

        Unfused: the core of attention (Korthikanti et al., §4.1.3). Fused: every second product
        and all element-wise work (TorchTitan's operator policy: W. Liang et al., 2024).
        """
        if not self.stack.fused_attention:
            scores = self.scores * (2 * self.size + 1 if self.stack.dropout else self.size)
            return Recompute("selective", self.saved() - scores, self.attention())
        model, t = self.model, self.split.tensor
        kv = self.kv_heads * model.head_size
        ups = 2 if model.gated else 1
        columns = [model.hidden // t, kv, kv, model.hidden, *[model.inner // t] * ups, model.hidden]
        widths = columns[::2] if not self.stack.fused_elementwise else columns[:-1:2]
        outputs = sum(
            self.norm_bytes / self.token_bytes * w if w == model.hidden else w for w in widths
        )
        kept = self.norm_bytes + self.tokens * self.size * (outputs + model.hidden / t)
        contracted = [model.hidden] * 3 + [model.hidden // t] + [model.hidden] * ups
        again = [
            Dot(self.tokens, n, k, dtype=self.dot_dtype)
            for n, k in list(zip(columns, contracted, strict=False))[1::2]
        ]
        return Recompute("selective", kept, (*again, *self.streams()))
