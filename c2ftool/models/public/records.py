"""Known public checkpoints, as data.

Addresses are those of the authors' READMEs (github.com/cwx-worst-one/EAT, github.com/YuanGongND/ast). EAT's Hugging
Face files hold the encoder (and the head); its Google Drive files hold the decoder and the teacher as well. A hash
stands here only where one is on record; without one, the first download's is kept beside the file and checked from then
on. ImageNet weights are on timm's record: see timm_records.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One place of a checkpoint. file: its name in the cache and on mirrors; page: for people."""

    url: str
    file: str
    page: str
    sha256: str | None = None


@dataclass(frozen=True)
class PublicFrontend:
    """The log-mel that the weights were trained on; (x - mean) / (2 std)."""

    sample_rate: int = 16_000
    mels: int = 128
    window: str = "hanning"
    frame_length: int = 400
    hop: int = 160
    frames: int = 1024
    mean: float = -4.268
    std: float = 4.569


@dataclass(frozen=True)
class PublicWeights:
    """One published checkpoint.

    classes: of its head, 0 without one, in the order of its data's published class list. frontend: None for weights of
    images. stride: (time, mel) from patch to patch.
    """

    name: str
    family: str
    backbone: str
    task: str  # pretrained, or the data it was fine-tuned on
    about: str
    sources: tuple[Source, ...]
    classes: int = 0
    licence: str = "MIT (licence of the authors' repository)"
    frontend: PublicFrontend | None = PublicFrontend()
    stride: tuple[int, int] = (16, 16)


def _hugging_face(repository: str, name: str, sha256: str | None = None) -> Source:
    page = f"https://huggingface.co/worstchan/{repository}"
    return Source(f"{page}/resolve/main/model.safetensors", f"{name}.safetensors", page, sha256)


def _drive(identity: str, name: str) -> Source:
    # The address behind the page's button; without confirm=t large files are answered with a web page.
    url = f"https://drive.usercontent.google.com/download?id={identity}&export=download&confirm=t"
    return Source(url, f"{name}.pt", f"https://drive.google.com/file/d/{identity}/view")


_EAT = (
    PublicWeights(
        name="eat_base_epoch10_pretrained",
        family="eat",
        backbone="eat_base",
        task="pretrained",
        about="10 epochs of AudioSet-2M: the paper's; fine-tuned 40.3 mAP on AS-20K, 48.6 on AS-2M",
        sources=(_drive("10pklbY_fKraQUIBizSg1kv4lJXNWxpxl", "eat_base_epoch10_pretrained"),),
    ),
    PublicWeights(
        name="eat_base_epoch10_as2m",
        family="eat",
        backbone="eat_base",
        task="AS-2M",
        about="the paper's, fine-tuned on AudioSet-2M: 48.6 mAP",
        sources=(_drive("1F07zN8N54rXU-szvKUlYaCFMCepc4wHR", "eat_base_epoch10_as2m"),),
        classes=527,
    ),
    PublicWeights(
        name="eat_base_epoch10_as20k",
        family="eat",
        backbone="eat_base",
        task="AS-20K",
        about="the paper's, fine-tuned on AudioSet-20K: 40.3 mAP",
        sources=(_drive("1fRX_Mgj4sHxV2F6AVfoqXObfgzFMnHRA", "eat_base_epoch10_as20k"),),
        classes=527,
    ),
    PublicWeights(
        name="eat_base_epoch30_pretrained",
        family="eat",
        backbone="eat_base",
        task="pretrained",
        about="30 epochs of AudioSet-2M; fine-tuned 41.3 mAP on AS-20K, 48.9 on AS-2M",
        sources=(
            _hugging_face(
                "EAT-base_epoch30_pretrain",
                "eat_base_epoch30_pretrained",
                # as recorded by a public study that used the file, not by the authors
                "8623072d09aac4f3ad1168b4fed3a24e4f68fe1da25b9fe733375efb237e5f48",
            ),
            _drive("19hfzLgHCkyqTOYmHt8dqVa9nm-weBq4f", "eat_base_epoch30_pretrained"),
        ),
    ),
    PublicWeights(
        name="eat_base_epoch30_as2m",
        family="eat",
        backbone="eat_base",
        task="AS-2M",
        about="30 epochs, fine-tuned on AudioSet-2M: 48.9 mAP",
        sources=(
            _hugging_face("EAT-base_epoch30_finetune_AS2M", "eat_base_epoch30_as2m"),
            _drive("1aCYiQmoZv_Gh1FxnR-CCWpNAp6DIJzn6", "eat_base_epoch30_as2m"),
        ),
        classes=527,
    ),
    PublicWeights(
        name="eat_large_epoch20_pretrained",
        family="eat",
        backbone="eat_large",
        task="pretrained",
        about="20 epochs of AudioSet-2M; fine-tuned 42.0 mAP on AS-20K, 49.5 on AS-2M",
        sources=(
            _hugging_face("EAT-large_epoch20_pretrain", "eat_large_epoch20_pretrained"),
            _drive("1PEgriRvHsqrtLzlA478VemX7Q0ZGl889", "eat_large_epoch20_pretrained"),
        ),
    ),
    PublicWeights(
        name="eat_large_epoch20_as2m",
        family="eat",
        backbone="eat_large",
        task="AS-2M",
        about="20 epochs, fine-tuned on AudioSet-2M: 49.5 mAP",
        sources=(
            _hugging_face("EAT-large_epoch20_finetune_AS2M", "eat_large_epoch20_as2m"),
            _drive("1b_f_nQAdjM1B6u72OFUtFiUu-4yM2shd", "eat_large_epoch20_as2m"),
        ),
        classes=527,
    ),
)

_AST_PAGE = "https://github.com/YuanGongND/ast#pretrained-models"
_AUDIOSET = PublicFrontend(mean=-4.2677393, std=4.5689974)
_SPEECH_COMMANDS = PublicFrontend(frames=128, mean=-6.845978, std=5.5654526)


def _ast(place: str, file: str, about: str, stride: int, *, task: str = "AS-2M", classes: int = 527) -> PublicWeights:
    """A checkpoint of the authors' Dropbox. place: of the file there; stride: the same over time and mel bands."""
    name = f"ast_{file}"
    return PublicWeights(
        name=name,
        family="ast",
        backbone="ast_base",
        task=task,
        about=f"{about}; stride {stride}",
        # without dl=1 a web page would come
        sources=(Source(f"https://www.dropbox.com/s/{place}/{file}.pth?dl=1", f"{name}.pth", _AST_PAGE),),
        classes=classes,
        licence="BSD-3-Clause (licence of the authors' repository)",
        frontend=_AUDIOSET if task == "AS-2M" else _SPEECH_COMMANDS,
        stride=(stride, stride),
    )


_AST = (
    _ast("ca0b1v2nlxzyeb4", "audioset_10_10_0.4593", "the paper's best single model, weights averaged: 45.9 mAP", 10),
    _ast("1tv0hovue1bxupk", "audioset_10_10_0.4495", "AudioSet-2M, not averaged: 45.0 mAP", 10),
    _ast("6u5sikl4b9wo4u5", "audioset_10_10_0.4483", "AudioSet-2M, not averaged: 44.8 mAP", 10),
    _ast("kt6i0v9fvfm1mbq", "audioset_10_10_0.4475", "AudioSet-2M, not averaged: 44.8 mAP", 10),
    _ast("snfhx3tizr4nuc8", "audioset_12_12_0.4467", "AudioSet-2M, not averaged: 44.7 mAP", 12),
    _ast("z18s6pemtnxm4k7", "audioset_14_14_0.4431", "AudioSet-2M, not averaged: 44.3 mAP", 14),
    _ast("mdsa4t1xmcimia6", "audioset_16_16_0.4422", "AudioSet-2M, not averaged, no overlap: 44.2 mAP", 16),
    _ast(
        "q0tbqpwv44pquwy",
        "speechcommands_10_10_0.9812",
        "Speech Commands V2, 35 words: 98.1 % accuracy",
        10,
        task="Speech Commands V2",
        classes=35,
    ),
)

PUBLIC_WEIGHTS: dict[str, PublicWeights] = {record.name: record for record in (*_EAT, *_AST)}
