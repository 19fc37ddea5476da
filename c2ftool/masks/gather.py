"""Taking visible tokens out of a sequence, and putting them back.

Axes: B clips, R = B x K rows (K clones, clip-major), N tokens, V visible tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """(R, V, D) tokens at (R, V) places of (B, N, D); row r reads clip r // (R / B).

    One flat lookup: the clones of a clip are never copied whole.
    """
    clips, count, width = tokens.shape
    rows = len(index)
    if rows % clips:
        raise ValueError(f"{rows} rows are not a whole number of clones of {clips} clips")
    clip = torch.arange(rows, device=index.device) // (rows // clips)
    flat = (index + clip[:, None] * count).flatten()
    return tokens.reshape(clips * count, width).index_select(0, flat).view(rows, index.shape[1], width)


def scatter_tokens(visible: Tensor, index: Tensor, fill: Tensor) -> Tensor:
    """(R, N, D): `fill` (R, N, D) with the visible tokens (R, V, D) at their (R, V) places."""
    return fill.scatter(1, index[..., None].expand(-1, -1, visible.shape[-1]), visible)


def masked_places(index: Tensor, tokens: int) -> Tensor:
    """(R, tokens) bool: True where a token is not among the visible (R, V) places."""
    masked = torch.ones(len(index), tokens, dtype=torch.bool, device=index.device)
    return masked.scatter_(1, index, False)
