"""The backbones as data: sizes, patch and front end. Built by c2ftool/models/build.py."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FrontendDefaults:
    """The front end a backbone was published with. Durations in milliseconds."""

    kind: str = "kaldi"
    sample_rate: int = 16_000
    mels: int = 128
    window: str = "hanning"
    frame_length_ms: int = 25
    hop_ms: int = 10
    frames: int = 1024


@dataclass(frozen=True)
class Backbone:
    """One size of one family."""

    name: str
    family: str
    width: int
    depth: int
    heads: int
    patch: tuple[int, int] = (16, 16)  # (frames, mel bands)
    patched: bool = True  # whether patches are made by a kernel that can be resized
    prefix: int = 1  # tokens in front of the patches'
    mlp_ratio: int = 4
    frontend: FrontendDefaults = field(default_factory=FrontendDefaults)
    about: str = ""


_EAT = "Chen et al., IJCAI 2024"
_AST = "Gong et al., Interspeech 2021, distilled DeiT"

BACKBONES: dict[str, Backbone] = {
    b.name: b
    for b in (
        Backbone("eat_tiny", "eat", 96, 4, 3, about="for a CPU, the demo and tests"),
        Backbone("eat_mini", "eat", 192, 6, 3, about="for a laptop"),
        Backbone("eat_small", "eat", 384, 12, 6, about="for one small GPU"),
        Backbone("eat_base", "eat", 768, 12, 12, about=f"as published ({_EAT})"),
        Backbone("eat_large", "eat", 1024, 24, 16, about=f"as published ({_EAT})"),
        Backbone("ast_micro", "ast", 96, 4, 3, prefix=2, about="for a CPU and tests"),
        Backbone("ast_tiny", "ast", 192, 12, 3, prefix=2, about=f"tiny of {_AST}"),
        Backbone("ast_small", "ast", 384, 12, 6, prefix=2, about=f"small of {_AST}"),
        Backbone("ast_base", "ast", 768, 12, 12, prefix=2, about=f"as published ({_AST})"),
    )
}
