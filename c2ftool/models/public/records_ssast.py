"""Published checkpoints of SSAST: README of github.com/YuanGongND/ssast.

Pre-trained on AudioSet-2M and LibriSpeech unless said otherwise. Figures are that README's means of the paper's audio
and speech tasks after fine-tuning.
"""

from __future__ import annotations

from dataclasses import replace

from c2ftool.models.public.record import PublicWeights, dropbox
from c2ftool.spec import frontends

_PAGE = "https://github.com/YuanGongND/ssast#pretrained-models"
_FRONT_END = replace(frontends.AST, mean=-4.2677393, std=4.5689974)


def _record(place: str, called: str, name: str, about: str) -> PublicWeights:
    """place, called: folder and name of the file on Dropbox."""
    _, size, kind, *_ = name.split("_")
    return PublicWeights(
        name=name,
        family="ssast",
        backbone=f"ssast_{kind}_{size}",
        task="pretrained",
        about=about,
        sources=(dropbox(place, called, f"{name}.pth", _PAGE),),
        licence="BSD-3-Clause (licence of the authors' repository)",
        frontend=_FRONT_END,
        stride=(16, 16) if kind == "patch" else (2, 128),
    )


def _released(place: str, size: str, kind: str, masked: int, figures: str) -> PublicWeights:
    return _record(
        place,
        f"SSAST-{size}-{kind}-{masked}.pth",
        f"ssast_{size}_{kind}_{masked}".lower(),
        f"{masked} of 512 tokens masked; {figures}",
    )


def _ablation(place: str, called: str, what: str, about: str, *, masked: int = 400) -> PublicWeights:
    name = f"ssast_base_patch_{masked}{what and f'_{what}'}"
    return _record(place, f"audio_model_{called}.pth", name, f"of the paper's ablations: {about}")


SSAST = (
    _released("ewrzpco95n9jdz6", "Base", "Patch", 400, "the paper's for audio: 59.9 audio, 79.5 speech"),
    _released("nx6nl4d4bl71sm8", "Base", "Frame", 400, "the paper's for speech: 57.6 audio, 84.0 speech"),
    _released("mxrm9qog6aj8hif", "Base", "Patch", 250, "58.6 audio, 79.5 speech"),
    _released("4e6l7ulhwrfoana", "Base", "Frame", 250, "55.6 audio, 81.6 speech"),
    _released("i24w446rl9pkf05", "Small", "Patch", 400, "58.1 audio, 78.2 speech"),
    _released("fkbtf78y94113wz", "Tiny", "Patch", 400, "53.3 audio, 75.7 speech"),
    _released("rx7g60ruzawffzv", "Tiny", "Frame", 400, "47.8 audio"),
    _ablation("0oyrtfbjzkwho2p", "100m", "", "100 of 512 tokens masked", masked=100),
    _ablation("znuzgwf2zvrpjkr", "dis", "discriminative", "the discriminative objective alone"),
    _ablation("u6ws5fjrid10x4p", "gen", "generative", "the generative objective alone"),
    _ablation("y6x2ck2ca3tb7d9", "as20k", "as20k", "AudioSet-20K alone"),
    _ablation("m9p782df3faql1q", "as", "as2m", "AudioSet-2M alone"),
    _ablation("f4bn2qelu3m8ksu", "librispeech", "librispeech", "LibriSpeech-960 alone"),
)
