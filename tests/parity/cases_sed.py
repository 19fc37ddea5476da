"""Parity cases of the sound-event-detection transformers: a published file from waveform to scores over time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from inputs import Case, Outputs, backbone_named, load_strictly, loaded, wave_of
from torch import Tensor, nn

from c2ftool.frontend.build import build_frontend
from c2ftool.models.backbone import Backbone
from c2ftool.models.build import build_backbone
from c2ftool.models.frames import FrameHead, align
from c2ftool.models.layout import Rules, Shape, fit
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import NoCompression
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.layout import compressed, full_frontend
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import ResolvedFrontend, Tokens

FAMILIES = {"atst_frame": "atst", "fpasst": "fpasst", "m2d": "m2d", "asit": "asit"}  # of a case's `model`
UNUSED = ("mask_embed", "norm_stats")  # in published files, and never used


@torch.no_grad()
def sound_events(case: Case) -> Outputs:
    """The features, what passed through the blocks, and the scores. A block_N is the Nth, counted from 1."""
    config = case["config"]
    backbone, heads, front = trained(case)
    wave = wave_of(case["input"])
    x = build_frontend(front)(wave, torch.tensor([wave.shape[1]]))
    outputs: Outputs = {"features": x.transpose(1, 2)[:, None]}

    def keep(name: str) -> Callable[[nn.Module, object, tuple[Tensor, Tensor]], None]:
        return lambda _module, _given, out: outputs.update({name: out[0]})

    for place, block in enumerate(backbone.get_submodule("blocks").children(), 1):
        block.register_forward_hook(keep(f"block_{place}"))
    sequence = backbone.published_sequence(x)
    outputs |= {"embedding_sequence": sequence, "aligned_sequence": align(sequence, config["seq_len"])}
    outputs["logits"], _ = heads(sequence)
    return outputs


def trained(case: Case) -> tuple[Backbone, FrameHead, ResolvedFrontend]:
    """Backbone and heads with the case's weights, and the front end that comes with them."""
    config, family = case["config"], FAMILIES[case["model"]]
    start = loaded(case, [name for name, _ in case["tensors"] if name.endswith(UNUSED)])
    name = backbone_named(family, config | {"embed_dim": config["dim"]})
    if name is None or (start.family, start.backbone_name) != (family, name):
        raise AssertionError(f"the loader took the weights for {start.backbone_name}, the case is of {name}")
    front, tokens = whole(name)
    backbone = build_backbone(Model(backbone=name), tokens).eval()
    new = backbone.shape(tokens)
    old = Shape(start.grid or new.grid, start.patch or new.patch)
    rules = Rules(positions=backbone.size.fitted, antialias=False)
    load_strictly(backbone, fit(start.backbone, backbone.sized, old, new, rules)[0])
    assert start.head is not None
    width = start.head["strong.weight"].shape[1]
    strong, weak = config["n_classes_strong"], config["n_classes_weak"]
    heads = FrameHead(width, strong, config["seq_len"], weak_classes=weak).eval()
    load_strictly(heads, start.head)
    return backbone, heads, front


def whole(name: str) -> tuple[ResolvedFrontend, Tokens]:
    """The front end and the tokens of a backbone at full resolution."""
    size = BACKBONES[name]
    return compressed(full_frontend(Frontend(), size, 0.0, 1.0), NoCompression(method="none"), size, size.patch)


RUN: dict[str, Callable[[Case], Outputs]] = dict.fromkeys(FAMILIES, sound_events)
