"""HTS-AT's head: a convolution turns the last stage's tokens into scores over time (Chen et al., ICASSP 2022, 2.3)."""

from __future__ import annotations

from torch import Tensor, nn


class TokenSemanticHead(nn.Module):
    """Scores of all classes at each of the T time positions, from all mel bands there and at its two neighbours.

    Axes: B clips, T x F tokens, D width, C classes.
    """

    def __init__(self, width: int, classes: int, frequency: int) -> None:
        """frequency: F."""
        super().__init__()
        self.frequency = frequency
        self.conv = nn.Conv2d(width, classes, (frequency, 3), padding=(0, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, C) logits of the clip, the mean over time, of (B, T F, D) time-major tokens."""
        return self.frames(tokens).mean(2)

    def frames(self, tokens: Tensor) -> Tensor:
        """(B, C, T) logits of (B, T F, D) time-major tokens."""
        image = tokens.unflatten(1, (-1, self.frequency)).permute(0, 3, 2, 1)
        return self.conv(image)[:, :, 0]
