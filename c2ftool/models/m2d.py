"""M2D's encoder (Niizumi et al., TASLP 2024; public code: nttcslab/m2d, examples/portable_m2d.py).

Axes: B clips, R rows, T x F token grid, N = T F tokens, D width.
Tokens are mel-major (token = f * T + t), CLS in front with a position of its own. An input is looked at in chunks of
1001 frames that know nothing of each other; positions are those within a chunk. The last chunk is filled up with zeros
to a whole patch, and has no more patches than a whole one. The public code fills up the input as a whole, so that its
last chunk can lose up to a patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.models.backbone import shape_of
from c2ftool.models.layout import Kernel, Shape, Sized, Table
from c2ftool.models.prenorm import PreNormVit
from c2ftool.spec.layout import CHUNK
from c2ftool.spec.resolved import Tokens


class M2d(PreNormVit):
    """The encoder, for the token grid it was built or resized for."""

    sized: Mapping[str, Sized] = {
        "pos_embed": Table(prefix=1, mel_major=True),
        "patch_embed.proj.weight": Kernel(mel_first=True),
    }
    mel_major: ClassVar[bool] = True

    def shape(self, tokens: Tokens) -> Shape:
        """What the sized tensors depend on: positions are those of one chunk."""
        shape = shape_of(tokens)
        time, frequency = shape.grid
        return Shape((min(time, CHUNK // shape.patch[0]), frequency), shape.patch)

    def embed(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, N, D) with positions. Raises ValueError for an input of another grid."""
        frames, mels = features.shape[1:]
        if self.grid(frames) != self.tokens.grid:
            raise self.refusal(frames)
        whole = frames // CHUNK
        parts = []
        if whole:
            chunks = features[:, : whole * CHUNK].reshape(-1, CHUNK, mels)
            parts.append(self._joined(self._chunks(chunks), whole))
        if frames % CHUNK:
            parts.append(self._chunks(features[:, whole * CHUNK :]))
        return (torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]).flatten(1, 2)

    def encode(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(R, N, D) embedded tokens -> (R, 1 + N, D) after the last norm: the mean of the chunks' CLS, the others.

        All whole chunks go through the blocks as one batch. A clip's chunks skip the same branches.
        """
        time, frequency = self.tokens.grid
        longest = self.shape(self.tokens).grid[0]
        if time <= longest:
            return super().encode(tokens, draw)
        whole, rest = divmod(time, longest)
        begun, last = tokens.unflatten(1, (frequency, time)).split([whole * longest, rest], dim=2)
        rows = begun.unflatten(2, (whole, longest)).transpose(1, 2).flatten(0, 1).flatten(1, 2)
        repeated = draw and replace(draw, rows=draw.rows.repeat_interleave(whole))
        out = super().encode(rows, repeated)
        classes = [out[:, 0].unflatten(0, (-1, whole))]
        parts = [self._joined(out[:, 1:].unflatten(1, (frequency, longest)), whole)]
        if rest:
            out = super().encode(last.flatten(1, 2), draw)
            classes.append(out[:, :1])
            parts.append(out[:, 1:].unflatten(1, (frequency, rest)))
        cls = torch.cat(classes, dim=1).mean(1, keepdim=True)
        return torch.cat([cls, torch.cat(parts, dim=2).flatten(1, 2)], dim=1)

    def published_sequence(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, T, F D): the tokens of a time step side by side, low frequencies first."""
        time, frequency = self.tokens.grid
        return self(features, draw)[:, 1:].unflatten(1, (frequency, time)).transpose(1, 2).flatten(2)

    def _chunks(self, features: Tensor) -> Tensor:
        """(R, F, t, D) with positions, of (R, frames, mels) that are no more than a chunk."""
        _, frequency = self.tokens.grid
        patch, frames = self.tokens.patch[0], features.shape[1]
        if frames < CHUNK:
            features = F.pad(features, (0, 0, 0, -frames % patch))[:, :CHUNK]
        tokens = self.patch_embed(features).unflatten(1, (frequency, -1))
        positions = self.pos_embed[:, 1:].unflatten(1, (frequency, -1))
        return tokens + positions[:, :, : tokens.shape[2]]

    @staticmethod
    def _joined(chunks: Tensor, count: int) -> Tensor:
        """(B, F, count t, D) of (B count, F, t, D): the chunks of a clip one after the other."""
        return chunks.unflatten(0, (-1, count)).transpose(1, 2).flatten(2, 3)
