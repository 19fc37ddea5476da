"""ATST-Frame's encoder (Li et al., TASLP 2024; as in Schmid et al., ICASSP 2025: models/atstframe/).

A token is 4 frames of all 64 mel bands; there is no CLS. The table of positions has one row per token: a shorter input
is given its first rows. The projections to queries, keys and values have no bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from c2ftool.models.layout import Kernel, Sized, Table
from c2ftool.models.prenorm import PreNormVit


class Atst(PreNormVit):
    """The encoder, for the token grid it was built or resized for."""

    sized: Mapping[str, Sized] = {
        "pos_embed": Table(prefix=0, mel_major=True),
        "patch_embed.proj.weight": Kernel(mel_first=True),
    }
    mel_major: ClassVar[bool] = True  # of the kernel; the grid has one row
    qkv_bias: ClassVar[bool] = False
