"""Floating-point operations of a model, counted by torch's own counter, on the meta device: no data, no arithmetic.

The convention, everywhere in c2ftool: 2 x multiply-adds of matrix products, convolutions and attention; element-wise
work (norms, activations, softmax) is not counted. Attention counts as its two matrix products forward and four
backward, as mathematics needs; that a fused kernel computes the scores again in its backward pass does not raise the
count. What the forward pass does twice of its own accord (activation checkpointing) does.

torch's counter is used with two corrections:

- Fused attention on the CPU has no formula there and would count as nothing, and fused attention on CUDA counts its
  recomputation; the count is therefore taken with the plain kernel selected, which also is what meta tensors take.
- The weight gradient of a grouped convolution is counted there as if it were dense, too high by the number of groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Flops:
    """Operations of one step: its forward pass, and forward and backward together."""

    forward: int
    training: int

    def __post_init__(self) -> None:
        if not 0 <= self.forward <= self.training:
            raise ValueError(f"forward ({self.forward}) is part of training ({self.training})")


def count(run: Callable[[], object]) -> int:
    """The operations that the call performs, 2 x multiply-adds. Whatever `run` raises passes through."""
    counter = _counter()
    with sdpa_kernel(SDPBackend.MATH), counter:
        run()
    return counter.get_total_flops()


def clip_flops(build: Callable[[], nn.Module], step: Callable[[nn.Module], Tensor]) -> Flops:
    """The operations of one training step of the module that `build` makes, on the meta device.

    build: called with meta as the default device. step: called with the module in training mode, also with meta as the
    default device; makes its own inputs and returns a loss, which is summed. Give it one clip for the cost per clip.
    What `step` does without gradient (a teacher) is part of both counts. Parameters with `requires_grad` unset save
    their gradient's operations, as in training.
    """
    counter = _counter()
    with torch.device("meta"), torch.enable_grad():
        module = build().train()
        with sdpa_kernel(SDPBackend.MATH), counter:
            loss = step(module).sum()
            forward = counter.get_total_flops()
            loss.backward()
    return Flops(forward, counter.get_total_flops())


def _counter() -> FlopCounterMode:
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward_flops}
    )


def _convolution_backward_flops(
    grad_out: Any,
    x: Any,
    weight: Any,
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: list[bool],
    **_: Any,
) -> int:
    """Each of the two gradients takes as many operations as the forward pass; arguments are shapes.

    A weight (c_out, c_in / groups, *kernel), or (c_in, c_out / groups, *kernel) if transposed, meets every position of
    the output, or of the input if transposed, once per clip: groups are in the weight's shape already.
    """
    positions = prod((x if transposed else grad_out)[2:])
    forward = 2 * x[0] * positions * prod(weight)
    return forward * (int(output_mask[0]) + int(output_mask[1]))
