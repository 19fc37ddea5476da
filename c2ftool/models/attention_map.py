"""Where a body looks: the attention of one block over the token grid of its clips.

Axes: B clips, H heads, P tokens in front, F x T token grid, N = F T, d width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from c2ftool.models.backbone import Backbone
from c2ftool.models.relative import GatedAttention
from c2ftool.models.vit import Attention


@torch.no_grad()
def attention_map(backbone: Backbone, features: Tensor, block: int = -1) -> Tensor | None:
    """(B, F, T) of (B, frames, mels): how much a block's attention looks at every token, averaged over heads.

    With tokens in front (CLS) it is theirs, averaged; else the mean of all tokens. What falls on the grid sums to one.
    None where attention is not over the whole grid: HTS-AT's windows, M2D's inputs of several chunks, CNN14.
    """
    blocks = backbone.blocks_of()
    attention = getattr(blocks[block], "attn", None) if blocks else None
    if not isinstance(attention, Attention | GatedAttention):
        return None
    seen: list[tuple[Any, ...]] = []
    handle = attention.register_forward_pre_hook(lambda module, given: seen.append(given))
    # a compiled block would not know of the hook
    compiled = [(b, b._compiled_call_impl) for b in blocks]
    try:
        for b, _ in compiled:
            b._compiled_call_impl = None
        backbone(features)
    finally:
        handle.remove()
        for b, code in compiled:
            b._compiled_call_impl = code
    lay = backbone.lays()[block]
    if len(seen) != 1 or len(seen[0][0]) != len(features):
        return None
    probabilities = _probabilities(attention, *seen[0]).mean(1)
    rows = probabilities[:, : lay.prefix] if lay.prefix else probabilities
    on_grid = rows.mean(1)[:, lay.prefix :]
    on_grid = on_grid / on_grid.sum(1, keepdim=True)
    return lay.to_grid(on_grid[..., None])[..., 0]


def _probabilities(attention: nn.Module, x: Tensor, *bias: Tensor) -> Tensor:
    """(B, H, queries, keys) of what the attention was given."""
    if isinstance(attention, Attention):
        q, k, _ = attention.qkv(x).unflatten(2, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
    assert isinstance(attention, GatedAttention)
    from c2ftool.models.relative import as_matrix

    flat = attention.q(x)
    q, k = (t.unflatten(2, (attention.heads, -1)).transpose(1, 2) for t in (flat, attention.k(x)))
    added = bias[0] if bias[0].dim() == 3 else as_matrix(bias[0])
    return (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + attention.gates(flat)[..., None] * added).softmax(-1)
