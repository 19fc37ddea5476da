"""Gated relative attention on the CPU, forward and backward: one custom operator for eager and compiled models.

Axes: B clips, H heads, N tokens, d width of a head, D = H d, n queries worked on at a time.

As in flash attention, scores are made for some queries at a time in buffers that stay in cache, and again in the
backward pass, from the logarithms of the rows' sums. torch's own fused attention has no gradient for a bias.

Keys are taken in reverse order: the bias of query i and key j is then entry i + j of the bias by distance, a view of it
with strides (1, 1), never written out. Likewise, a buffer of logit gradients with rows of n + N entries, the last n of
them 0, is read in rows of n + N - 1: equal distances are then one below the other, and the gradients of gate and bias
are products of that with a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_SCORES = 1 << 18  # made at a time: some buffers of 1 MB, about what a core's cache holds
# Logarithm of the least weight, 4e-18: far below what float32 adds to a sum of 1. Weights of 1e-38 and less would be
# right as well, but products with such numbers take hundreds of times as long.
_LEAST = -40.0


def attend_on_cpu(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d) + gate bias) v, (B, N, D) in the type of v, of (B, N, D) each; gate (B, H, N).

    bias: (H, 2 N - 1) by the distance key - query, from -(N - 1) on. Computed in float32, or float64 if q, k, v are.
    """
    return _attend(q, k, v, gate, bias)[0]


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@torch.library.custom_op("c2ftool::gated_attention", mutates_args=(), device_types="cpu")
def _attend(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """((B, N, D) attention, (B, H, N, 1) logarithms of the rows' sums)."""
    with torch.autocast("cpu", enabled=False):
        return _forward(q, k, v, gate, bias)


@torch.library.custom_op("c2ftool::gated_attention_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    grad: Tensor, out: Tensor, sums: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, gate and bias."""
    with torch.autocast("cpu", enabled=False):
        return _backward(grad, out, sums, q, k, v, gate, bias)


def _forward(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    heads, tokens = gate.shape[1:]
    qs, ks, vs = _split(q, heads), _split(k, heads, reverse=True), _split(v, heads, reverse=True)
    gate, bias, scale = gate.contiguous(), bias.flip(1), qs.shape[3] ** -0.5
    mixed, most = torch.empty_like(qs), qs.new_empty(*qs.shape[:3], 1)
    sums = torch.empty_like(most)
    buffer = qs.new_empty(_rows(tokens), tokens)
    for clip, head, rows in _pieces(qs):
        scores, at = buffer[: rows.stop - rows.start], (clip, head, rows)
        _logits(scores, qs[at], ks[clip, head], gate[at], bias[head, rows.start :], scale)
        torch.amax(scores, 1, keepdim=True, out=most[at])
        scores.sub_(most[at]).clamp_(min=_LEAST).exp_()
        torch.sum(scores, 1, keepdim=True, out=sums[at])
        torch.mm(scores, vs[clip, head], out=mixed[at])
    mixed.div_(sums)
    return _joined(mixed).to(v.dtype), most.add_(sums.log_())


def _backward(
    grad: Tensor, out: Tensor, sums: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    heads, tokens = gate.shape[1:]
    qs, ks, vs, gs = (
        _split(q, heads),
        _split(k, heads, reverse=True),
        _split(v, heads, reverse=True),
        _split(grad, heads),
    )
    common = (gs * _split(out, heads)).sum(3, keepdim=True)
    gate, bias, scale = gate.contiguous(), bias.flip(1), qs.shape[3] ** -0.5
    to_q, to_k, to_v = torch.empty_like(qs), torch.zeros_like(ks), torch.zeros_like(vs)
    to_gate, to_bias = torch.empty_like(gate), torch.zeros_like(bias)
    most = _rows(tokens)
    all_weights, all_grads = qs.new_empty(2, most, tokens)
    skew = qs.new_zeros(most * (most + tokens))
    for clip, head, rows in _pieces(qs):
        count, at = rows.stop - rows.start, (clip, head, rows)
        weights, grads = all_weights[:count], all_grads[:count]
        distances = slice(rows.start, rows.stop + tokens - 1)
        _logits(weights, qs[at], ks[clip, head], gate[at], bias[head, distances], scale)
        weights.sub_(sums[at]).clamp_(min=_LEAST).exp_()
        to_v[clip, head].addmm_(weights.t(), gs[at])
        torch.mm(gs[at], vs[clip, head].t(), out=grads).sub_(common[at])
        logits = skew.as_strided((count, tokens), (most + tokens, 1))
        by_distance = skew.as_strided((count, tokens + count - 1), (most + tokens - 1, 1))
        torch.mul(weights, grads, out=logits)
        torch.mm(logits, ks[clip, head], out=to_q[at])
        to_k[clip, head].addmm_(logits.t(), qs[at], alpha=scale)
        torch.mv(by_distance, bias[head, distances], out=to_gate[at])
        to_bias[head, distances].addmv_(by_distance.t(), gate[at])
    return (
        _joined(to_q.mul_(scale)).to(q.dtype),
        _joined(to_k.flip(2)).to(k.dtype),
        _joined(to_v.flip(2)).to(v.dtype),
        to_gate,
        to_bias.flip(1),
    )


def _logits(out: Tensor, q: Tensor, k: Tensor, gate: Tensor, bias: Tensor, scale: float) -> None:
    """Write (n, N) logits of n queries and all keys, these in reverse; bias: from the first query's distances on."""
    torch.mul(gate[:, None], bias.as_strided(out.shape, (1, 1)), out=out)
    out.addmm_(q, k.t(), alpha=scale)


def _rows(tokens: int) -> int:
    """Queries that are worked on at a time."""
    return min(tokens, max(32, _SCORES // tokens))


def _pieces(x: Tensor) -> Iterator[tuple[int, int, slice]]:
    """(clip, head, queries) that are worked on at a time, of (B, H, N, d)."""
    clips, heads, tokens = x.shape[:3]
    step = _rows(tokens)
    for head in range(heads):
        for clip in range(clips):
            for start in range(0, tokens, step):
                yield clip, head, slice(start, min(tokens, start + step))


def _split(x: Tensor, heads: int, reverse: bool = False) -> Tensor:
    """(B, H, N, d) float32 of (B, N, D); reverse: in the order of tokens."""
    x = wide(x).unflatten(2, (heads, -1)).transpose(1, 2)
    return x.flip(2).contiguous() if reverse else x.contiguous()


def _joined(x: Tensor) -> Tensor:
    """(B, N, D) of (B, H, N, d), in memory of its own."""
    return x.transpose(1, 2).flatten(2).contiguous()


# --- for autograd, compilation and counting ---------------------------------------------------------------------------


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), gate.new_empty(*gate.shape, 1)


@_attend_backward.register_fake
def _(
    grad: Tensor, out: Tensor, sums: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (q, k, v, gate, bias))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, grad: Tensor, _sums: Tensor | None) -> tuple[Tensor, ...]:
    return _attend_backward(grad, *ctx.saved_tensors)


_attend.register_autograd(_gradients, setup_context=_keep)


# Two products forward and four backward, as mathematics needs: the logits computed again do not count (costs.flops).
@register_flop_formula(torch.ops.c2ftool.gated_attention)
def _forward_flops(q: Any, k: Any, v: Any, gate: Any, bias: Any, **_: Any) -> int:
    batch, tokens, width = q
    return 2 * 2 * batch * tokens * tokens * width


@register_flop_formula(torch.ops.c2ftool.gated_attention_backward)
def _backward_flops(grad: Any, out: Any, sums: Any, q: Any, *_: Any, **__: Any) -> int:
    return 2 * _forward_flops(q, None, None, None, None)
