"""BEATs' gated relative position bias and the attention that it is added to (Chen et al., ICML 2023; backbone.py).

    attention = softmax(q k' / sqrt(d) + gate[query] * table[bucket(key - query)]) v
    gate = a (b s - 1) + 2;  a, b = sigmoid(sums of four of the 8 outputs of a linear layer on the unscaled query)

Axes: B clips, H heads, N tokens, d width of a head, D = H d. The bias depends on the distance alone: of N x N entries
only 2 N - 1 differ, so a head's bias is kept as those ("distances", -(N - 1) to N - 1), once for all blocks.

Half precision. Queries, keys and values may be bfloat16 or float16; on the CPU logits, bias, gate and softmax are
float32. Elsewhere the gated bias takes the type of the queries, clamped to its range, and the fused kernel adds it to
float32 logits, so that none overflows: the public code holds them in float16 and divides them by 32 to stay
below 65504. The gate's sums are float32 too: in float16 an overflow to both sides would make inf - inf.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.models.relative_cpu import attend_on_cpu, wide
from c2ftool.spec.backbones import Relative

GATE = 8  # outputs of the gate's linear layer: two sums of four


class RelativeBias(nn.Module):
    """A learned value for every bucket of distances and every head; one table for all blocks."""

    def __init__(self, shape: Relative, heads: int) -> None:
        super().__init__()
        self.shape = shape
        self.table = nn.Parameter(torch.empty(shape.buckets, heads))

    def forward(self, tokens: int) -> Tensor:
        """What every block adds for so many tokens: (H, 2 N - 1) by distance on the CPU, (H, N, N) elsewhere.

        float32 (or float64). As a matrix, [query, key].
        """
        index = bucket_index(tokens, self.shape.buckets, self.shape.distance, self.table.device)
        # an embedding: its gradient is summed in one order, that of plain indexing is not for long inputs
        by_distance = wide(F.embedding(index, self.table)).t()
        return by_distance if self.table.device.type == "cpu" else as_matrix(by_distance)


def buckets(distances: Tensor, count: int, distance: int) -> Tensor:
    """The bucket of every distance key - query, int64. count: of all; distance: from which on they are alike.

    Half are for keys after the query. Within a half, the first half are one distance each, the others logarithmic.
    """
    half = count // 2
    exact = half // 2
    far = distances.abs()
    # in this order and in float32, as published: a bucket ends where rounding lets it
    logarithm = torch.log(far.clamp(min=1).float() / exact) / math.log(distance / exact) * (half - exact)
    coarse = (exact + logarithm.to(torch.int64)).clamp(max=half - 1)
    return torch.where(far < exact, far, coarse) + half * (distances > 0)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def bucket_index(tokens: int, count: int, distance: int, device: torch.device) -> Tensor:
    """(2 N - 1,) buckets of the distances -(N - 1) to N - 1. Computed on the CPU: one rounding for every device."""
    return buckets(torch.arange(1 - tokens, tokens, device="cpu"), count, distance).to(device)


def as_matrix(by_distance: Tensor) -> Tensor:
    """(H, N, N), [query, key], of (H, 2 N - 1) by distance; its gradient is summed in a fixed order."""
    heads, distances = by_distance.shape
    tokens = (distances + 1) // 2
    # read in rows of 2 N, a row of 2 N - 1 begins one further to the left each time: row i, column j is i + j
    rows = by_distance[:, None].expand(heads, tokens, distances).reshape(heads, -1)
    return F.pad(rows, (0, tokens)).view(heads, tokens, 2 * tokens)[..., :tokens].flip(1)


class XavierLinear(nn.Linear):
    """A linear layer whose first weights are Xavier normal times a gain."""

    def __init__(self, inputs: int, outputs: int, gain: float) -> None:
        super().__init__(inputs, outputs)
        self.gain = gain


class GatedAttention(nn.Module):
    """Multi-head self-attention with a relative position bias that a gate of the query scales."""

    def __init__(self, width: int, heads: int, gain: float) -> None:
        """gain: of the first values of value and output layer."""
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.q = XavierLinear(width, width, 1.0)
        self.k = XavierLinear(width, width, 1.0)
        self.v = XavierLinear(width, width, gain)
        self.proj = XavierLinear(width, width, gain)
        self.gate = nn.Linear(width // heads, GATE)
        self.gate_scale = nn.Parameter(torch.empty(1, heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D). bias: of `RelativeBias` for N tokens."""
        q = self.q(x)
        return self.proj(attend(q, self.k(x), self.v(x), self.gates(q), bias))

    def gates(self, q: Tensor) -> Tensor:
        """(B, H, N) float32 factors of the bias, of the unscaled queries (B, N, D)."""
        with full_precision(q.device):
            # sums of outputs are outputs of summed weights
            weight = wide(self.gate.weight).unflatten(0, (2, GATE // 2)).sum(1)
            offset = wide(self.gate.bias).unflatten(0, (2, GATE // 2)).sum(1)
            opened = F.linear(wide(q).unflatten(2, (self.heads, -1)), weight, offset).sigmoid()
        a, b = opened.transpose(1, 2).unbind(-1)
        return a * (b * wide(self.gate_scale)[..., 0] - 1) + 2


def attend(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d) + gate bias) v, (B, N, D) in the type of v, of (B, N, D) each; gate (B, H, N).

    bias: (H, 2 N - 1) by distance, for tensors on the CPU; or (H, N, N).
    """
    if bias.dim() == 2:
        return attend_on_cpu(q, k, v, gate, bias)
    mask = gate[..., None] * bias
    if q.dtype == torch.float16:
        mask = mask.clamp(-65504, 65504)
    heads = gate.shape[1]
    qs, ks, vs = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    mixed = F.scaled_dot_product_attention(qs, ks, vs, attn_mask=mask.to(q.dtype))
    return mixed.transpose(1, 2).flatten(2)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Without autocast within; the meta device knows none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
