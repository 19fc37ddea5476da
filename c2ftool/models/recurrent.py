"""A bidirectional GRU over the frames of a clip: what stands before the linear heads of the teachers of Schmid et al.
(ICASSP 2025; models/seq_models.py).

Axes: B clips, T frames, D width, H hidden units of one direction.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.models.relative import full_precision


class BiGru(nn.GRU):
    """Layers of GRUs that read a clip in both directions, each layer the results of both.

    The reset gate is applied after the recurrent product, as cuDNN does. No dropout, so nothing is drawn. Computed in
    the precision of its weights whatever autocast says: half precision would round the state at every step.
    """

    def __init__(self, width: int, layers: int, hidden: int) -> None:
        """width: of the frames. hidden: units of one direction; the results are twice as wide."""
        super().__init__(width, hidden, layers, batch_first=True, bidirectional=True)

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, 2 H) of (B, T, D), the results forward in time first."""
        if frames.is_meta:
            return self._plain(frames)
        self._gather()
        # cuDNN refuses a backward pass through what ran in evaluation mode; nothing here differs between the modes
        mode, self.training = self.training, torch.is_grad_enabled()
        try:
            with full_precision(frames.device):
                out: Tensor = super().forward(frames.to(next(self.parameters()).dtype))[0]
        finally:
            self.training = mode
        return out

    def _gather(self) -> None:
        """Put the weights side by side, as cuDNN wants them, where a copy of the module has taken them apart."""
        weights = list(self.parameters())
        if weights[0].is_cuda and len({weight.untyped_storage().data_ptr() for weight in weights}) > 1:
            self.flatten_parameters()

    def _plain(self, frames: Tensor) -> Tensor:
        """What a meta tensor is given: the shape, at the operations and with the memory of torch's loop over time.

        All steps as one product instead of T, which counts a hundred times quicker. The state before the first step is
        zero, and no gradient is made of it. What cuDNN keeps in the loop's place is not known.
        """
        x, hidden = frames.to(next(self.parameters()).dtype), self.hidden_size
        for layer in range(self.num_layers):
            directions = []
            for way in ("", "_reverse"):
                to_gates, recurrent, bias, recurrent_bias = self._weights(f"_l{layer}{way}")
                gates = F.linear(x, to_gates, bias)
                first, rest = torch.zeros_like(gates[:, :1, :hidden]), gates[:, 1:, :hidden].contiguous()
                states = (first, rest)  # before each step: as large as they are, and differentiable as they are
                inner = torch.cat([F.linear(state, recurrent, recurrent_bias) for state in states], dim=1)
                reset, update = inner[..., : 2 * hidden].add_(gates[..., : 2 * hidden]).sigmoid_().chunk(2, dim=-1)
                new = (gates[..., 2 * hidden :] + inner[..., 2 * hidden :].clone() * reset).tanh()
                directions.append((torch.cat(states, dim=1) - new) * update + new)
            x = torch.cat(directions, dim=2)
        return x

    def _weights(self, place: str) -> list[Any]:
        return [getattr(self, f"{kind}{place}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
