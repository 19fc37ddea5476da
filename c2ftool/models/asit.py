"""ASiT's encoder (Atito et al., TASLP 2024; as in Schmid et al., ICASSP 2025: models/asit/).

Tokens are time-major (token = t * F + f), CLS in front with a position of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.models.layout import Kernel, Sized, Table
from c2ftool.models.prenorm import PreNormVit


class Asit(PreNormVit):
    """The encoder, for the token grid it was built or resized for."""

    sized: Mapping[str, Sized] = {
        "pos_embed": Table(prefix=1, mel_major=False),
        "patch_embed.proj.weight": Kernel(mel_first=False),
    }
    mel_major: ClassVar[bool] = False

    def published_sequence(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, 1 + T F, D): CLS and all tokens as they come, the mel axis fastest, which is not an order in time."""
        return self(features, draw)
