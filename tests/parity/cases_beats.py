"""The parity case of BEATs: a published file for sound events, from waveform to the scores of 250 frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from inputs import Case, Outputs, load_strictly, loaded, time_first, wave_of

from c2ftool.frontend.build import build_frontend
from c2ftool.models.beats import Beats
from c2ftool.models.frames import FrameHead, align
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import NoCompression
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.layout import compressed, full_frontend


@torch.no_grad()
def published_beats(case: Case) -> Outputs:
    """Front end, two of the blocks, the sequence as published, what becomes of it over time, and the strong head."""
    config = case["config"]
    start = loaded(case)
    if (start.family, start.backbone_name, start.patch) != ("beats", "beats_base", time_first(config["patch"])):
        raise AssertionError(f"the loader took the weights for {start.backbone_name}, patch {start.patch}")
    size = BACKBONES["beats_base"]
    front = full_frontend(Frontend(), size, 0.0, 1.0)
    front, tokens = compressed(front, NoCompression(method="none"), size, size.patch)
    backbone = Beats(size, tokens).eval()
    load_strictly(backbone, start.backbone)
    strong, weak = config["n_classes_strong"], config["n_classes_weak"]
    head = FrameHead(backbone.width, strong, config["seq_len"], weak_classes=weak).eval()
    load_strictly(head, start.head)

    outputs: Outputs = {}
    for place, block in enumerate(backbone.blocks, start=1):  # 0 is what goes into the first
        block.register_forward_hook(lambda _m, _x, out, name=f"block_{place}": outputs.update({name: out}))
    wave = wave_of(case["input"])
    features = build_frontend(front)(wave, torch.tensor([wave.shape[1]]))
    sequence = backbone.published_sequence(features)
    return outputs | {
        "features": features.transpose(1, 2)[:, None],
        "embedding_sequence": sequence,
        "aligned_sequence": align(sequence, config["seq_len"]),
        "logits": head(sequence)[0],
    }


RUN: dict[str, Callable[[Case], Outputs]] = {"beats": published_beats}
