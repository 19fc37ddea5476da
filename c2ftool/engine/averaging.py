"""The running mean of a phase's weights (Gong et al., AST: the mean of the epochs' checkpoints)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class Averager:
    """The arithmetic mean of the weights given so far, float32 on the CPU."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    def add(self, weights: Mapping[str, Tensor]) -> None:
        """Take one more set of weights into the mean. What is no floating-point tensor is copied."""
        self.count += 1
        for name, value in weights.items():
            if self.count == 1 or not value.is_floating_point():
                self.mean[name] = value.detach().clone()
            else:
                self.mean[name] += (value.detach() - self.mean[name]) / self.count

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean}

    @classmethod
    def restore(cls, state: Mapping[str, Any] | None) -> Averager:
        """The averager as it was; an empty one where there was none."""
        out = cls()
        if state is not None:
            out.count, out.mean = state["count"], dict(state["mean"])
        return out
