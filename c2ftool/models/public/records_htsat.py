"""Published checkpoints of HTS-AT and of CNN14, on the same front end.

Addresses: README, notebook and issue 44 of github.com/RetroCirce/HTS-Audio-Transformer; the model hub of
github.com/microsoft/Swin-Transformer; README of github.com/qiuqiangkong/audioset_tagging_cnn.
"""

from __future__ import annotations

from dataclasses import replace

from c2ftool.models.public.record import PublicWeights, Source, by_hand, direct, drive, release
from c2ftool.spec import frontends
from c2ftool.spec.frontends import FrontendDefaults

_FOLDER = "https://drive.google.com/drive/folders/1f5VYMk0uos_YnuBshgmaTVioXbs7Kmz6"
_SPEECH_COMMANDS = replace(frontends.PANNS, sample_rate=16_000, frame_length_ms=64)  # the same 1024 samples


def _record(
    name: str, task: str, about: str, source: Source, classes: int, frontend: FrontendDefaults | None = frontends.PANNS
) -> PublicWeights:
    return PublicWeights(
        name, "htsat", "htsat_base", task, about, (source,), classes=classes, frontend=frontend, stride=(4, 4)
    )


HTSAT = (
    _record(
        "htsat_audioset",
        "AS-2M",
        "one of the authors' AudioSet-2M models of 46.5 to 47.3 mAP, which their ESC-50 training starts from",
        drive(
            "1OK8a5XuMVLyeVKF117L8pfxeZYdfSDZv",
            "htsat_audioset.ckpt",
            "49804bf7767809be5d5bfe9dc25f401442e0d24f242dded6b6dabea56bb645b0",
        ),
        527,
    ),
    _record(
        "htsat_esc50_fold1",
        "ESC-50",
        "from AudioSet; fold 1 of 0 to 4: 98.5 % accuracy (97.0 % over all, which lie beside it)",
        by_hand(_FOLDER, "HTSAT_ESC_exp=1_fold=1_acc=0.985.ckpt", "htsat_esc50_fold1.ckpt"),
        50,
    ),
    _record(
        "htsat_speechcommands",
        "Speech Commands V2",
        "35 words: 98.0 % accuracy in the paper",
        by_hand(_FOLDER, "HTSAT_SCV2_Saved_2.ckpt", "htsat_speechcommands.ckpt"),
        35,
        _SPEECH_COMMANDS,
    ),
    _record(
        "htsat_swin_imagenet",
        "ImageNet-1k",
        "Swin-T/C24 of 256 px, which AudioSet training starts from: 81.6 % top-1",
        release("SwinTransformer/storage", "v1.0.5", "swin_tiny_c24_patch4_window8_256.pth", "htsat_swin_imagenet.pth"),
        1000,
        None,
    ),
)

CNN14 = (
    PublicWeights(
        name="cnn14_audioset",
        family="cnn14",
        backbone="cnn14",
        task="AS-2M",
        about="PANNs Cnn14: 43.1 mAP",
        sources=(
            direct(
                "https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1",
                "cnn14_audioset.pth",
                "https://zenodo.org/records/3987831",
                # Zenodo states MD5 541141fa2ee191a88f24a3219fff024e of the same bytes
                "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31",
            ),
        ),
        classes=527,
        licence="CC-BY-4.0 (licence of the Zenodo record)",
        frontend=frontends.PANNS,
        stride=(32, 32),
    ),
)
