"""The backbones as data: sizes, patch, front end, and what each can do. Built by c2ftool/models/build.py."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from c2ftool.spec import frontends
from c2ftool.spec.frontends import FrontendDefaults

Method = Literal["fshift", "pool", "patch"]
Grid = Literal["patches", "stem", "chunks", "image", "halves"]
Pooling = Literal["cls", "mean", "linear_softmax", "embedding"]


@dataclass(frozen=True)
class Swin:
    """The stages of HTS-AT; its width, depth and heads are those of the first stage, all blocks, the first stage."""

    depths: tuple[int, ...] = (2, 2, 6, 2)
    window: int = 8


@dataclass(frozen=True)
class Relative:
    """What BEATs has in place of learned positions: a convolution over tokens, and a gated relative bias."""

    patch_width: int = 512  # of the patch embedding, before a linear layer
    kernel: int = 128  # of the convolution over tokens
    groups: int = 16
    buckets: int = 320
    distance: int = 800  # tokens, from which on all are alike


@dataclass(frozen=True)
class Backbone:
    """One size of one family. Pairs are (frames, mel bands).

    grid: how frames become tokens (layout.py). pool: what a clip head takes where a spec does not say; head_norm:
    whether a LayerNorm stands before its linear layer. fitted: how published positions are fitted to an input of
    another length: cut from the middle, their first rows, or resized. joined: with layer decay, embeddings learn as the
    first block and the last norm as the last (Schmid et al., ICASSP 2025), else at the full rate. fixed_mels: whether
    the network is made for the front end's mel bands. batch_norm: whether it has any.
    """

    name: str
    family: str
    width: int
    depth: int
    heads: int
    patch: tuple[int, int] = (16, 16)
    compressions: tuple[Method, ...] = ("fshift", "pool", "patch")
    prefix: int = 1  # tokens in front of the grid's
    mlp_ratio: int = 4
    frontend: FrontendDefaults = field(default_factory=FrontendDefaults)
    grid: Grid = "patches"
    pool: Pooling = "cls"
    head_norm: bool = True
    fitted: Literal["cut", "first", "bicubic"] = "cut"
    joined: bool = False
    fixed_mels: bool = False
    batch_norm: bool = False
    shape: Swin | Relative | None = None
    source: str = ""  # the paper
    about: str = ""

    @property
    def block_widths(self) -> list[int]:
        """Of each transformer block; empty for a network without."""
        if self.family == "cnn14":
            return []
        if isinstance(self.shape, Swin):
            return [self.width << stage for stage, depth in enumerate(self.shape.depths) for _ in range(depth)]
        return [self.width] * self.depth

    @property
    def patched(self) -> bool:
        """Whether patches are made by a kernel that can be resized."""
        return "patch" in self.compressions


_SED = "and of Schmid et al., ICASSP 2025"
_EAT = Backbone("eat", "eat", 768, 12, 12, source="Chen et al., IJCAI 2024")
_AST = Backbone("ast", "ast", 768, 12, 12, prefix=2, source="Gong et al., Interspeech 2021")
_SSAST = replace(_AST, family="ssast", pool="mean", source="Gong et al., AAAI 2022")
_FRAME = replace(_SSAST, patch=(2, 128))
_HTSAT = Backbone(
    "htsat", "htsat", 96, 12, 4, patch=(4, 4), prefix=0, frontend=frontends.PANNS, grid="image", pool="mean",
    fitted="bicubic", joined=True, fixed_mels=True, batch_norm=True, shape=Swin(), source="Chen et al., ICASSP 2022",
)  # fmt: skip
_BEATS = Backbone(
    "beats", "beats", 768, 12, 12, prefix=0, frontend=frontends.BEATS, pool="mean", head_norm=False, joined=True,
    shape=Relative(), source=f"Chen et al., ICML 2023, {_SED}",
)  # fmt: skip
_ATST = Backbone(
    "atst", "atst", 768, 12, 12, patch=(4, 64), prefix=0, frontend=frontends.ATST, pool="mean", head_norm=False,
    fitted="first", joined=True, fixed_mels=True, source=f"ATST-Frame: Li et al., TASLP 2024, {_SED}",
)  # fmt: skip
_FPASST = Backbone(
    "fpasst", "fpasst", 768, 12, 12, patch=(4, 128), compressions=("fshift", "pool"), prefix=2,
    frontend=frontends.FPASST, grid="stem", pool="mean", head_norm=False, fitted="first", joined=True, fixed_mels=True,
    source="Schmid et al., ICASSP 2025",
)  # fmt: skip
_M2D = Backbone(
    "m2d", "m2d", 768, 12, 12, frontend=frontends.M2D, grid="chunks", pool="mean", head_norm=False, fitted="first",
    joined=True, fixed_mels=True, source=f"Niizumi et al., TASLP 2024, {_SED}",
)  # fmt: skip
_ASIT = Backbone(
    "asit", "asit", 768, 12, 12, frontend=frontends.ASIT, pool="mean", head_norm=False, fitted="bicubic", joined=True,
    source=f"Atito et al., TASLP 2024, {_SED}",
)  # fmt: skip
_CNN14 = Backbone(
    "cnn14", "cnn14", 2048, 6, 1, patch=(32, 32), compressions=("fshift", "pool"), prefix=0, frontend=frontends.PANNS,
    grid="halves", pool="embedding", head_norm=False, joined=True, fixed_mels=True, batch_norm=True,
    source="PANNs: Kong et al., TASLP 2020",
)  # fmt: skip


def _sized(base: Backbone, name: str, width: int, depth: int, heads: int, about: str) -> Backbone:
    return replace(base, name=name, width=width, depth=depth, heads=heads, about=about)


def _published(base: Backbone, name: str, about: str = "as published") -> Backbone:
    return replace(base, name=name, about=about)


_TINY = "for a CPU and tests"

BACKBONES: dict[str, Backbone] = {
    b.name: b
    for b in (
        _sized(_EAT, "eat_tiny", 96, 4, 3, "for a CPU, the demo and tests"),
        _sized(_EAT, "eat_mini", 192, 6, 3, "for a laptop"),
        _sized(_EAT, "eat_small", 384, 12, 6, "for one small GPU"),
        _published(_EAT, "eat_base"),
        _sized(_EAT, "eat_large", 1024, 24, 16, "as published"),
        _sized(_AST, "ast_micro", 96, 4, 3, _TINY),
        _sized(_AST, "ast_tiny", 192, 12, 3, "distilled DeiT-Ti"),
        _sized(_AST, "ast_small", 384, 12, 6, "distilled DeiT-S"),
        _published(_AST, "ast_base"),
        _sized(_SSAST, "ssast_patch_micro", 96, 4, 3, _TINY),
        _sized(_SSAST, "ssast_patch_tiny", 192, 12, 3, "as published, patches of 16 x 16"),
        _sized(_SSAST, "ssast_patch_small", 384, 12, 6, "as published, patches of 16 x 16"),
        _published(_SSAST, "ssast_patch_base", "as published, patches of 16 x 16"),
        _sized(_FRAME, "ssast_frame_micro", 96, 4, 3, _TINY),
        _sized(_FRAME, "ssast_frame_tiny", 192, 12, 3, "as published, 2 frames of all mel bands"),
        _published(_FRAME, "ssast_frame_base", "as published, 2 frames of all mel bands"),
        replace(
            _sized(_HTSAT, "htsat_micro", 24, 4, 1, _TINY),
            shape=Swin(depths=(1, 1, 1, 1)),
        ),
        _published(_HTSAT, "htsat_base"),
        replace(
            _sized(_BEATS, "beats_micro", 96, 3, 3, _TINY),
            shape=Relative(patch_width=48, kernel=16, groups=4, buckets=32, distance=64),
        ),
        _published(_BEATS, "beats_base"),
        _sized(_ATST, "atst_micro", 96, 4, 3, _TINY),
        _published(_ATST, "atst_base"),
        _sized(_FPASST, "fpasst_micro", 96, 4, 3, _TINY),
        _published(_FPASST, "fpasst_base"),
        _sized(_M2D, "m2d_micro", 96, 4, 3, _TINY),
        _published(_M2D, "m2d_base"),
        _sized(_ASIT, "asit_micro", 96, 4, 3, _TINY),
        _published(_ASIT, "asit_base"),
        replace(_sized(_CNN14, "cnn14_micro", 128, 6, 1, _TINY)),
        _published(_CNN14, "cnn14"),
    )
}
