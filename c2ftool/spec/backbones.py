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
    patch: tuple[int, int] = (16, 16)
    mlp_ratio: int = 4
    frontend: FrontendDefaults = field(default_factory=FrontendDefaults)
    about: str = ""


_EAT = "Chen et al., IJCAI 2024"

BACKBONES: dict[str, Backbone] = {
    b.name: b
    for b in (
        Backbone("eat_tiny", "eat", 96, 4, 3, about="for a CPU, the demo and tests"),
        Backbone("eat_mini", "eat", 192, 6, 3, about="for a laptop"),
        Backbone("eat_small", "eat", 384, 12, 6, about="for one small GPU"),
        Backbone("eat_base", "eat", 768, 12, 12, about=f"as published ({_EAT})"),
        Backbone("eat_large", "eat", 1024, 24, 16, about=f"as published ({_EAT})"),
    )
}
