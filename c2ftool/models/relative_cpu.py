"""Gated relative attention on the CPU, forward and backward: one custom operator for eager and compiled models.

Axes: B clips, H heads, N tokens, d width of a head, D = H d; worked on at a time: h heads of clips, n queries.

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

_SCORES = 1 << 18  # made at a time by a thread: some buffers of 1 MB, about what a core's cache holds
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
    clips, heads, tokens = gate.shape
    qs, ks, vs = _split(q, heads), _split(k, heads, reverse=True), _split(v, heads, reverse=True)
    gate, bias = gate.flatten(0, 1), bias.flip(1).repeat(clips, 1)
    mixed, most = torch.empty_like(qs), qs.new_empty(*qs.shape[:2], 1)
    sums = torch.empty_like(most)
    buffer = qs.new_empty(_at_once(qs) * _rows(tokens) * tokens)
    for some, rows in _pieces(qs):
        at = some, rows
        scores = _first(buffer, qs[at], tokens)
        _logits(scores, qs[at], ks[some], gate[at], bias[some], rows)
        torch.amax(scores, 2, keepdim=True, out=most[at])
        scores.sub_(most[at]).clamp_(min=_LEAST).exp_()
        torch.sum(scores, 2, keepdim=True, out=sums[at])
        torch.bmm(scores, vs[some], out=mixed[at])
    mixed.div_(sums)
    return _joined(mixed, clips).to(v.dtype), most.add_(sums.log_()).unflatten(0, (clips, heads))


def _backward(
    grad: Tensor, out: Tensor, sums: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    clips, heads, tokens = gate.shape
    qs, ks, vs, gs = (
        _split(q, heads),
        _split(k, heads, reverse=True),
        _split(v, heads, reverse=True),
        _split(grad, heads),
    )
    common, sums = (gs * _split(out, heads)).sum(2, keepdim=True), sums.flatten(0, 1)
    gate, bias, scale = gate.flatten(0, 1), bias.flip(1).repeat(clips, 1), qs.shape[2] ** -0.5
    to_q, to_k, to_v = torch.empty_like(qs), torch.zeros_like(ks), torch.zeros_like(vs)
    to_gate, to_bias = torch.empty_like(gate), torch.zeros_like(bias)
    most, at_once = _rows(tokens), _at_once(qs)
    of_weights, of_grads = qs.new_empty(2, at_once * most * tokens)
    skew = qs.new_zeros(at_once * most * (most + tokens))
    for some, rows in _pieces(qs):
        at, distances = (some, rows), slice(rows.start, rows.stop + tokens - 1)
        weights, grads = _first(of_weights, qs[at], tokens), _first(of_grads, qs[at], tokens)
        _logits(weights, qs[at], ks[some], gate[at], bias[some], rows)
        weights.sub_(sums[at]).clamp_(min=_LEAST).exp_()
        to_v[some].baddbmm_(weights.mT, gs[at])
        torch.bmm(gs[at], vs[some].mT, out=grads).sub_(common[at])
        count, stride = weights.shape[1], most + tokens
        logits = skew.as_strided(weights.shape, (most * stride, stride, 1))
        by_distance = skew.as_strided((len(weights), count, tokens + count - 1), (most * stride, stride - 1, 1))
        torch.mul(weights, grads, out=logits)
        torch.bmm(logits, ks[some], out=to_q[at])
        to_k[some].baddbmm_(logits.mT, qs[at], alpha=scale)
        to_gate[at] = torch.bmm(by_distance, bias[some, distances, None])[..., 0]
        to_bias[some, distances] += torch.bmm(gate[at][:, None], by_distance)[:, 0]
    return (
        _joined(to_q.mul_(scale), clips).to(q.dtype),
        _joined(to_k.flip(1), clips).to(k.dtype),
        _joined(to_v.flip(1), clips).to(v.dtype),
        to_gate.unflatten(0, (clips, heads)),
        to_bias.unflatten(0, (clips, heads)).sum(0).flip(1),
    )


def _logits(out: Tensor, q: Tensor, k: Tensor, gate: Tensor, bias: Tensor, rows: slice) -> None:
    """Write (h, n, N) logits of n queries and all keys, these in reverse; h heads of clips, rows: of the queries."""
    by_key = bias.as_strided(out.shape, (bias.stride(0), 1, 1), bias.storage_offset() + rows.start)
    torch.mul(gate[..., None], by_key, out=out)
    out.baddbmm_(q, k.mT, alpha=q.shape[2] ** -0.5)


def _rows(tokens: int) -> int:
    """Queries of a head that are worked on at a time."""
    return min(tokens, max(32, _SCORES // tokens))


def _at_once(x: Tensor) -> int:
    """Heads of clips that are worked on at a time: some for each thread, which then waits less often for the others."""
    return min(len(x), 3 * torch.get_num_threads())


def _pieces(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """(heads of clips, queries) that are worked on at a time, of (B H, N, d)."""
    tokens = x.shape[1]
    for head in range(0, len(x), _at_once(x)):
        for start in range(0, tokens, _rows(tokens)):
            yield slice(head, min(len(x), head + _at_once(x))), slice(start, min(tokens, start + _rows(tokens)))


def _first(buffer: Tensor, q: Tensor, tokens: int) -> Tensor:
    """The first of a buffer, as scores (h, n, N) of (h, n, d) queries."""
    return buffer[: q.shape[0] * q.shape[1] * tokens].view(*q.shape[:2], tokens)


def _split(x: Tensor, heads: int, reverse: bool = False) -> Tensor:
    """(B H, N, d) float32 of (B, N, D); reverse: in the order of tokens."""
    x = wide(x).unflatten(2, (heads, -1)).transpose(1, 2)
    return (x.flip(2) if reverse else x).flatten(0, 1).contiguous()


def _joined(x: Tensor, clips: int) -> Tensor:
    """(B, N, D) of (B H, N, d), in memory of its own."""
    return x.unflatten(0, (clips, -1)).transpose(1, 2).flatten(2).contiguous()


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
