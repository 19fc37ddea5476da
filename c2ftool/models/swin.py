"""The parts of a Swin Transformer (Liu et al., ICCV 2021): attention within windows, every second time moved by half.

Axes: B clips, an image of h x w tokens, N = h w, n windows of W = side * side tokens, D width, H heads. Height is the
mel axis, width is time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.models.backbone import unset
from c2ftool.models.vit import Mlp, beside

EPS = 1e-5  # of every LayerNorm
_APART = -100.0  # added to the scores of tokens that are no neighbours, as published

Image = tuple[int, int]


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias for how far apart two tokens lie."""

    index: Tensor

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.bias_table = nn.Parameter(torch.zeros(1, heads))
        self.register_buffer("index", relative_index(1), persistent=False)

    def set_window(self, side: int) -> None:
        """Take windows of another side; a table of another size is left unset."""
        self.bias_table = unset(self.bias_table, ((2 * side - 1) ** 2, self.heads))
        self.index = relative_index(side).to(self.bias_table.device)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, n, W, D) -> (B, n, W, D). mask: (n, W, W), added to the scores."""
        batch, windows, size, width = x.shape
        qkv = self.qkv(x).view(batch, windows, size, 3, self.heads, width // self.heads).permute(3, 0, 1, 4, 2, 5)
        # every window's heads as heads of its own: so the kernel needs the bias once, not for every clip
        q, k, v = qkv.flatten(2, 3).unbind(0)
        bias = self.bias_table[self.index.view(-1)].view(size, size, self.heads).permute(2, 0, 1)[None]
        bias = bias.expand(windows, -1, -1, -1) if mask is None else bias + mask[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.flatten(0, 1)[None].to(q.dtype))
        return self.proj(mixed.unflatten(1, (windows, self.heads)).transpose(2, 3).reshape(x.shape))


class SwinBlock(nn.Module):
    """A pre-norm block over the windows of an image. shifted: whether its windows are moved by half of their side."""

    mask: Tensor | None

    def __init__(self, width: int, heads: int, hidden: int, shifted: bool) -> None:
        super().__init__()
        self.shifted = shifted
        self.image: Image = (1, 1)
        self.side, self.shift = 1, 0
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = WindowAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width, hidden)
        self.beside_attention: nn.Module | None = None
        self.beside_mlp: nn.Module | None = None
        self.register_buffer("mask", None, persistent=False)

    def set_image(self, image: Image, largest: int) -> None:
        """Take an image of another size. Its windows have the side `largest`, or its own shorter one if that is less.

        Windows that reach from edge to edge are not moved. A table of another size is left unset.
        """
        self.image, self.side = image, min(largest, *image)
        self.shift = self.side // 2 if self.shifted and min(image) > largest else 0
        self.attn.set_window(self.side)
        device = self.attn.bias_table.device
        self.mask = shift_mask(image, self.side, self.shift).to(device) if self.shift else None

    def forward(self, x: Tensor, factors: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D). factors: (2, B, 1, 1) for the two branches, from `vit.drop_path`."""
        given = self.norm1(x)
        # adapters see the whole image, where attention sees its windows
        attended = self._attend(given.unflatten(1, self.image)).flatten(1, 2)
        attended = beside(self.beside_attention, attended, given, x)
        x = x + (attended if factors is None else attended * factors[0])
        given = self.norm2(x)
        branch = beside(self.beside_mlp, self.mlp(given), given, x)
        return x + (branch if factors is None else branch * factors[1])

    def _attend(self, x: Tensor) -> Tensor:
        """(B, h, w, D) -> (B, h, w, D)."""
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        x = whole(self.attn(windowed(x, self.side), self.mask), self.image, self.side)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x


class PatchMerging(nn.Module):
    """Each 2 x 2 tokens to one of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, EPS)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor, image: Image) -> Tensor:
        """(B, h w, D) of an image of even sides -> (B, h w / 4, 2 D)."""
        height, width = image
        # (B, h/2, 2, w/2, 2, D): of the four, the second is below the first
        four = x.unflatten(1, (height // 2, 2, width // 2, 2)).permute(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(four.flatten(3).flatten(1, 2)))


def windowed(x: Tensor, side: int) -> Tensor:
    """(B, n, W, D) windows of a (B, h, w, D) image, row by row."""
    batch, height, width, _ = x.shape
    cut = x.view(batch, height // side, side, width // side, side, -1).transpose(2, 3)
    return cut.reshape(batch, -1, side * side, x.shape[-1])


def whole(windows: Tensor, image: Image, side: int) -> Tensor:
    """(B, h, w, D): the image that `windowed` cut."""
    height, width = image
    cut = windows.unflatten(1, (height // side, width // side)).unflatten(3, (side, side))
    return cut.transpose(2, 3).reshape(len(windows), height, width, -1)


def relative_index(side: int) -> Tensor:
    """(W, W) int64: for each two tokens of a window, the row of their distance in a table of (2 side - 1)^2."""
    place = torch.arange(side)
    apart = place[:, None] - place + side - 1
    index = apart[:, None, :, None] * (2 * side - 1) + apart[None, :, None, :]
    return index.reshape(side * side, side * side)


def shift_mask(image: Image, side: int, shift: int) -> Tensor:
    """(n, W, W) float32, for windows moved by `shift`: -100 for two tokens that a window brings together only because
    the moved image goes on at its other end."""
    height, width = (_region(length, side, shift) for length in image)
    region = windowed((height[:, None] * 3 + width)[None, ..., None], side)[0, ..., 0]
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, _APART)


def _region(length: int, side: int, shift: int) -> Tensor:
    """(length,) 0 before the last window, 1 in it, 2 in the part of it that comes from the other end."""
    place = torch.arange(length)
    return (place >= length - side).long() + (place >= length - shift).long()
