"""Published checkpoints of EAT: README of github.com/cwx-worst-one/EAT.

The files of Hugging Face hold the encoder (and the head); those of Google Drive hold the decoder and the teacher too.
"""

from __future__ import annotations

from dataclasses import replace

from c2ftool.models.public.record import PublicWeights, Source, drive, hugging_face
from c2ftool.spec import frontends

_FRONT_END = replace(frontends.AST, mean=-4.268, std=4.569)


def _hub(repository: str, name: str, sha256: str | None = None) -> Source:
    return hugging_face(f"worstchan/{repository}", "model.safetensors", f"{name}.safetensors", sha256)


def _record(name: str, task: str, about: str, identity: str, *hub: Source) -> PublicWeights:
    """identity: of the file on Google Drive."""
    return PublicWeights(
        name=name,
        family="eat",
        backbone="_".join(name.split("_")[:2]),
        task=task,
        about=about,
        sources=(*hub, drive(identity, f"{name}.pt")),
        classes=0 if task == "pretrained" else 527,
        frontend=_FRONT_END,
    )


EAT = (
    _record(
        "eat_base_epoch10_pretrained",
        "pretrained",
        "10 epochs of AudioSet-2M: the paper's; fine-tuned 40.3 mAP on AS-20K, 48.6 on AS-2M",
        "10pklbY_fKraQUIBizSg1kv4lJXNWxpxl",
    ),
    _record(
        "eat_base_epoch10_as2m",
        "AS-2M",
        "the paper's, fine-tuned on AudioSet-2M: 48.6 mAP",
        "1F07zN8N54rXU-szvKUlYaCFMCepc4wHR",
    ),
    _record(
        "eat_base_epoch10_as20k",
        "AS-20K",
        "the paper's, fine-tuned on AudioSet-20K: 40.3 mAP",
        "1fRX_Mgj4sHxV2F6AVfoqXObfgzFMnHRA",
    ),
    _record(
        "eat_base_epoch30_pretrained",
        "pretrained",
        "30 epochs of AudioSet-2M; fine-tuned 41.3 mAP on AS-20K, 48.9 on AS-2M",
        "19hfzLgHCkyqTOYmHt8dqVa9nm-weBq4f",
        _hub(
            "EAT-base_epoch30_pretrain",
            "eat_base_epoch30_pretrained",
            "8623072d09aac4f3ad1168b4fed3a24e4f68fe1da25b9fe733375efb237e5f48",
        ),
    ),
    _record(
        "eat_base_epoch30_as2m",
        "AS-2M",
        "30 epochs, fine-tuned on AudioSet-2M: 48.9 mAP",
        "1aCYiQmoZv_Gh1FxnR-CCWpNAp6DIJzn6",
        _hub("EAT-base_epoch30_finetune_AS2M", "eat_base_epoch30_as2m"),
    ),
    _record(
        "eat_large_epoch20_pretrained",
        "pretrained",
        "20 epochs of AudioSet-2M; fine-tuned 42.0 mAP on AS-20K, 49.5 on AS-2M",
        "1PEgriRvHsqrtLzlA478VemX7Q0ZGl889",
        _hub("EAT-large_epoch20_pretrain", "eat_large_epoch20_pretrained"),
    ),
    _record(
        "eat_large_epoch20_as2m",
        "AS-2M",
        "20 epochs, fine-tuned on AudioSet-2M: 49.5 mAP",
        "1b_f_nQAdjM1B6u72OFUtFiUu-4yM2shd",
        _hub("EAT-large_epoch20_finetune_AS2M", "eat_large_epoch20_as2m"),
    ),
)
