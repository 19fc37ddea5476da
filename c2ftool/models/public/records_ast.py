"""Published checkpoints of AST: README of github.com/YuanGongND/ast."""

from __future__ import annotations

from dataclasses import replace

from c2ftool.models.public.record import PublicWeights, dropbox
from c2ftool.spec import frontends

_PAGE = "https://github.com/YuanGongND/ast#pretrained-models"
_AUDIOSET = replace(frontends.AST, mean=-4.2677393, std=4.5689974)
_SPEECH_COMMANDS = replace(frontends.AST, frames=128, mean=-6.845978, std=5.5654526)


def _record(
    place: str, file: str, about: str, stride: int, *, task: str = "AS-2M", classes: int = 527
) -> PublicWeights:
    """place: of the file on Dropbox; stride: the same over time and mel bands."""
    name = f"ast_{file}"
    return PublicWeights(
        name=name,
        family="ast",
        backbone="ast_base",
        task=task,
        about=f"{about}; stride {stride}",
        sources=(dropbox(place, f"{file}.pth", f"{name}.pth", _PAGE),),
        classes=classes,
        licence="BSD-3-Clause (licence of the authors' repository)",
        frontend=_AUDIOSET if task == "AS-2M" else _SPEECH_COMMANDS,
        stride=(stride, stride),
    )


AST = (
    _record(
        "ca0b1v2nlxzyeb4", "audioset_10_10_0.4593", "the paper's best single model, weights averaged: 45.9 mAP", 10
    ),
    _record("1tv0hovue1bxupk", "audioset_10_10_0.4495", "AudioSet-2M, not averaged: 45.0 mAP", 10),
    _record("6u5sikl4b9wo4u5", "audioset_10_10_0.4483", "AudioSet-2M, not averaged: 44.8 mAP", 10),
    _record("kt6i0v9fvfm1mbq", "audioset_10_10_0.4475", "AudioSet-2M, not averaged: 44.8 mAP", 10),
    _record("snfhx3tizr4nuc8", "audioset_12_12_0.4467", "AudioSet-2M, not averaged: 44.7 mAP", 12),
    _record("z18s6pemtnxm4k7", "audioset_14_14_0.4431", "AudioSet-2M, not averaged: 44.3 mAP", 14),
    _record("mdsa4t1xmcimia6", "audioset_16_16_0.4422", "AudioSet-2M, not averaged, no overlap: 44.2 mAP", 16),
    _record(
        "q0tbqpwv44pquwy",
        "speechcommands_10_10_0.9812",
        "Speech Commands V2, 35 words: 98.1 % accuracy",
        10,
        task="Speech Commands V2",
        classes=35,
    ),
)
