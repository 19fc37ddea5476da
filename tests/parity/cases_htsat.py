"""Parity cases of HTS-AT and CNN14: a published file from waveform to what the public code calls its output.

Everything is read off one pass of the classifier that users train.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from inputs import Case, Outputs, load_strictly, loaded, wave_of
from torch import Tensor, nn

from c2ftool.frontend.build import build_frontend, raw_log_mel
from c2ftool.models.build import build_classifier
from c2ftool.models.heads import ClipClassifier
from c2ftool.models.token_semantic import TokenSemanticHead
from c2ftool.spec import model as spec_model
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import NoCompression
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.layout import compressed, full_frontend
from c2ftool.spec.resolved import ResolvedFrontend, Tokens

GRIDS = {"htsat": (256, 16), "cnn14": None}  # that the loader must find out
REPEATED = 32  # rows of the published frame-wise output that are one position of ours


@torch.no_grad()
def published_htsat(case: Case) -> Outputs:
    unused = [name for name, _ in case["tensors"] if "relative_position_index" in name or ".head." in name]
    outputs, classifier, normalized = started(case, spec_model.TokenSemanticHead(kind="token_semantic"), unused)
    head, backbone = classifier.head, classifier.backbone
    assert isinstance(head, TokenSemanticHead)
    seen = watched(
        classifier,
        {
            "normalized": backbone.get_submodule("bn0"),
            "patch_embedding": backbone.get_submodule("patch_embed"),
            **{f"stage_{stage}": backbone.get_submodule(f"merges.{stage}") for stage in range(3)},
            "stage_3": backbone.get_submodule(f"blocks.{backbone.depth - 1}"),
            "embedding_sequence": backbone.get_submodule("norm"),  # in the image's order, as published
            "tokens": backbone,
        },
        normalized,
    )
    frames = head.frames(seen["tokens"])
    return (
        outputs
        | seen
        | {
            "normalized": seen["normalized"].transpose(1, 2),
            "image": backbone.image(normalized),  # type: ignore[operator]
            "token_semantic_logits": frames,
            "clipwise_output": seen["logits"].sigmoid(),
            "framewise_output": frames.sigmoid().repeat_interleave(REPEATED, 2).transpose(1, 2),
            "latent_output": backbone.embedding(seen["tokens"]),
        }
    )


@torch.no_grad()
def published_cnn14(case: Case) -> Outputs:
    outputs, classifier, normalized = started(case, spec_model.ClipHead(kind="clip"), [])
    backbone = classifier.backbone
    modules = {f"block_{n + 1}": backbone.get_submodule(f"blocks.{n}") for n in range(backbone.depth)}
    seen = watched(classifier, modules | {"pooled": backbone.get_submodule("fc1")}, normalized)
    return outputs | seen | {"clipwise_output": seen["logits"].sigmoid(), "pooled": seen["pooled"].relu()}


def started(case: Case, head: spec_model.Head, unused: list[str]) -> tuple[Outputs, ClipClassifier, Tensor]:
    """(the log-mel as recorded, the classifier with the case's weights, what it takes) of a case's waveform."""
    start, wave = loaded(case, unused), wave_of(case["input"])
    if start.backbone_name is None or (start.family, start.grid) != (case["model"], GRIDS[case["model"]]):
        raise AssertionError(f"the loader took the weights for {start.backbone_name}, {start.family}, {start.grid}")
    spec, tokens = made_for(start.backbone_name)
    config = spec_model.Model(backbone=start.backbone_name, head=head)
    classifier = build_classifier(config, tokens, case["config"]["classes"]).eval()
    load_strictly(classifier.backbone, start.backbone)
    load_strictly(classifier.head, start.head)
    normalized = build_frontend(spec)(wave, torch.tensor([wave.shape[1]]))
    return {"features": raw_log_mel(wave, spec)}, classifier, normalized


def made_for(backbone: str) -> tuple[ResolvedFrontend, Tokens]:
    """The front end and the tokens of a backbone at full resolution."""
    size = BACKBONES[backbone]
    return compressed(full_frontend(Frontend(), size, 0.0, 1.0), NoCompression(method="none"), size, size.patch)


def watched(classifier: ClipClassifier, modules: dict[str, nn.Module], x: Tensor) -> Outputs:
    """The logits of (B, frames, mels) features, and what the modules gave on the way."""
    seen: Outputs = {}
    handles = [
        module.register_forward_hook(lambda _module, _given, out, name=name: seen.update({name: out}))
        for name, module in modules.items()
    ]
    seen["logits"] = classifier(x)
    for handle in handles:
        handle.remove()
    return seen


RUN: dict[str, Callable[[Case], Outputs]] = {"htsat": published_htsat, "cnn14": published_cnn14}
