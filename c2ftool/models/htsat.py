"""HTS-AT's encoder: a Swin Transformer on a log-mel that is folded to a square (Chen et al., ICASSP 2022; htsat.py).

Axes: B clips, T x F patches, S = 4 stages, each of half the tokens over time and mel and twice the width.
A batch norm over mel bands takes the place of mean and deviation; frames are stretched to the next power of two; time
is cut into chunks, stacked on the mel axis (models/layout.py, image_of). Inside, tokens are in the image's order. There
are no positions but the distances that attention knows.
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.adapters.beside import Lay
from c2ftool.compression.grid import image_frames
from c2ftool.draws import Draw
from c2ftool.models.backbone import Backbone, unset
from c2ftool.models.layout import Change, Kernel, RelativeTable, Sized, image_of
from c2ftool.models.swin import EPS, Image, PatchMerging, SwinBlock
from c2ftool.spec.backbones import Backbone as Size
from c2ftool.spec.backbones import Swin
from c2ftool.spec.resolved import Tokens

_MERGE = re.compile(r"merges\.(\d+)\.")


class ImagePatches(nn.Module):
    """Patches of an image to tokens in its order, with a LayerNorm."""

    def __init__(self, tokens: Tokens, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, _mel_first(tokens.patch), stride=_mel_first(tokens.patch))
        self.norm = nn.LayerNorm(width, EPS)

    def set_tokens(self, tokens: Tokens) -> None:
        """Take another patch; a kernel of another size is left unset."""
        self.proj.kernel_size = self.proj.stride = _mel_first(tokens.patch)
        self.proj.weight = unset(self.proj.weight, (*self.proj.weight.shape[:2], *self.proj.kernel_size))

    def forward(self, image: Tensor) -> Tensor:
        """(B, height, width) -> (B, N, D)."""
        return self.norm(self.proj(image[:, None]).flatten(2).transpose(1, 2))


def _mel_first(sides: list[int]) -> tuple[int, int]:
    return sides[1], sides[0]


class HtsAt(Backbone):
    """The encoder, for the token grid it was built or resized for. `width` is that of the last stage's tokens."""

    head_eps: ClassVar[float] = EPS

    def __init__(self, size: Size, tokens: Tokens, drop_path_rate: float = 0.0) -> None:
        """Raises ValueError for patches that overlap or do not divide the image."""
        super().__init__(size, tokens, drop_path_rate)
        if not isinstance(size.shape, Swin):
            raise ValueError(f"{size.name} has no stages")
        self.window = size.shape.window
        self.stages = [stage for stage, depth in enumerate(size.shape.depths) for _ in range(depth)]  # of each block
        self.halvings = len(size.shape.depths) - 1
        self.width = size.width << self.halvings
        self.bn0 = nn.BatchNorm1d(tokens.mels)
        self.patch_embed = ImagePatches(tokens, size.width)
        self.blocks = nn.ModuleList()
        self.sized: dict[str, Sized] = {"patch_embed.proj.weight": Kernel(mel_first=True)}
        for place, stage in enumerate(self.stages):
            width, heads = size.width << stage, size.heads << stage
            shifted = (place - self.stages.index(stage)) % 2 == 1
            self.blocks.append(SwinBlock(width, heads, size.mlp_ratio * width, shifted))
            self.sized[f"blocks.{place}.attn.bias_table"] = RelativeTable(stage, self.window)
        self.merges = nn.ModuleList(PatchMerging(size.width << stage) for stage in range(self.halvings))
        self.norm = nn.LayerNorm(self.width, EPS)
        self.set_tokens(tokens)

    def forward(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) -> (B, T F, D) of the last stage, time-major. draw: of the rows, for drop path.

        Raises ValueError for an input of another grid than it was built for.
        """
        x = self.patch_embed(self.image(features))
        stage = 0
        for block, own, factor in zip(self.blocks, self.stages, self.skips(draw), strict=True):
            if own > stage:
                x = self.merges[stage](x, self._image(stage))
                stage = own
            x = block(x, factor)
        return self._unfolded(self.norm(x))

    def image(self, features: Tensor) -> Tensor:
        """(B, chunks * mels, width) of (B, frames, mels): normalised, stretched to a power of two and folded."""
        frames, mels = features.shape[1:]
        tokens = self.tokens
        wanted = tokens.time * tokens.patch[0]
        if (image_frames(frames), mels) != (wanted, tokens.mels):
            raise ValueError(f"{frames} frames x {mels} mel bands are no image of {wanted} x {tokens.mels}")
        x = self.bn0(features.transpose(1, 2))  # (B, mels, frames)
        if frames != wanted:
            x = F.interpolate(x[:, None], (mels, wanted), mode="bicubic", align_corners=True)[:, 0]
        chunks = image_of(tokens.grid)[2]
        return x.unflatten(2, (chunks, -1)).transpose(1, 2).flatten(1, 2)

    def _unfolded(self, x: Tensor) -> Tensor:
        """(B, N, D) of the last stage from the image's order to t * F + f."""
        height, width = self._image(self.halvings)
        chunks = image_of(self.tokens.grid)[2]
        return x.unflatten(1, (chunks, height // chunks, width)).transpose(2, 3).flatten(1, 3)

    def _image(self, stage: int) -> Image:
        """(height, width) of a stage's image of tokens."""
        height, width, _ = image_of(self.tokens.grid)
        return height >> stage, width >> stage

    def lays(self) -> list[Lay]:
        """How the tokens of each block lie: in the order of the folded image, each stage's of half the sides."""
        height, _, chunks = image_of(self.tokens.grid)
        return [Lay(0, (height // chunks) >> stage, mel_major=True, chunks=chunks) for stage in self.stages]

    def grid(self, frames: int) -> tuple[int, int]:
        """(T, F) of the last stage's tokens, of an input of so many frames."""
        time, frequency = super().grid(frames)
        return time >> self.halvings, frequency >> self.halvings

    def set_tokens(self, tokens: Tokens) -> list[Change]:
        """Take another token grid and patch; tensors of another shape are left unset. Raises ValueError as built."""
        check_tokens(tokens)
        before, self.tokens = self.tokens, tokens
        self.patch_embed.set_tokens(tokens)
        for block, stage in zip(self.blocks, self.stages, strict=True):
            block.set_image(self._image(stage), self.window)  # type: ignore[operator]
        if before.grid == tokens.grid:
            return []
        old, new = image_of(before.grid), image_of(tokens.grid)
        about = f"windows of an image of {old[0]} x {old[1]} tokens -> {new[0]} x {new[1]}, and their masks"
        return [Change("windows", "recomputed", about)]

    @classmethod
    def first_value(cls, owner: nn.Module, short: str, name: str, value: Tensor, generator: torch.Generator) -> None:
        """As HTS-AT: layers and tables truncated normal 0.02, norms one and zero; the kernel as torch makes one."""
        if isinstance(owner, nn.LayerNorm | nn.BatchNorm1d | nn.SyncBatchNorm):
            value.fill_(1.0 if short == "weight" else 0.0)
        elif isinstance(owner, nn.Conv2d):
            bound = owner.weight[0].numel() ** -0.5
            value.uniform_(-bound, bound, generator=generator)
        elif short == "bias":
            value.zero_()
        else:
            nn.init.trunc_normal_(value, std=0.02, generator=generator)

    def layer_of(self, name: str) -> int | None:
        """As of any backbone; what merges tokens learns as the last block before it."""
        if match := _MERGE.match(name):
            return self.stages.index(int(match[1]) + 1) - 1
        return super().layer_of(name)


def check_tokens(tokens: Tokens) -> None:
    """Raises ValueError for patches that overlap, or do not divide what frames are stretched to, and the mel bands.

    The rest is seen to where tokens are counted (compression/grid.py, image_grid).
    """
    if tokens.stride != tokens.patch:
        raise ValueError(f"patches of {tokens.patch} cannot overlap (stride {tokens.stride})")
    frames, (time, mel) = image_frames(tokens.frames), tokens.patch
    if (frames, tokens.mels) != (tokens.time * time, tokens.frequency * mel):
        raise ValueError(f"patches of {time} x {mel} do not divide {frames} frames x {tokens.mels} mel bands")
