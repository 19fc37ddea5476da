"""Parity cases of AST: a published file from waveform to logits, and its positions fitted to a shorter input.

Everything is read off one pass of the classifier that users train, pooling included: `pooled` is what its head takes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from inputs import (
    Case,
    Outputs,
    backbone_named,
    features,
    frontend_of,
    load_strictly,
    loaded,
    raw_log_mel,
    time_first,
    wave_of,
)
from torch import Tensor, nn

from c2ftool.frontend.build import build_frontend
from c2ftool.models.build import build_classifier
from c2ftool.models.heads import ClipClassifier
from c2ftool.models.layout import Rules
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.resolved import Tokens

IMAGENET_HEADS = ("v.head.", "v.head_dist.")  # in every published file, and never used
FITTED = {"antialias": True, "plain": False}  # suffix of an output -> Rules.antialias


def published_ast(case: Case) -> Outputs:
    return fitted(case) if "transfer" in case else whole(case)


@torch.no_grad()
def whole(case: Case) -> Outputs:
    """As published: a waveform through front end and model, then features of the case's second input."""
    given, config, front = case["input"], case["config"], case["frontend"]
    classifier = trained(case, config["frames"], config["grid"])
    wave, spec = wave_of(given), frontend_of(front["mean"], front["std"], config["frames"])
    normalized = build_frontend(spec)(wave, torch.tensor([wave.shape[1]]))
    outputs: Outputs = {"features": raw_log_mel(wave, spec), "normalized": normalized[0]}
    outputs |= watched(classifier, normalized)
    second = given["second"]
    return outputs | {
        f"{second['kind']}_{name}": value for name, value in watched(classifier, features(second)).items()
    }


@torch.no_grad()
def fitted(case: Case) -> Outputs:
    """Weights of one grid, fitted as at the border of two phases to the grid of another input."""
    config, x = case["config"], features(case["input"])
    published = trained(case, config["checkpoint_frames"], config["checkpoint_grid"])
    tokens = tokens_in(case, config["model_frames"], config["model_grid"])
    outputs: Outputs = {}
    for suffix, antialias in FITTED.items():
        classifier = copy.deepcopy(published)
        changes = classifier.backbone.resize(tokens, Rules(positions="bilinear", antialias=antialias))
        if [change.name for change in changes] != ["pos_embed"]:
            raise AssertionError(f"more than the positions changed, or less: {changes}")
        outputs[f"position_embedding_{suffix}"] = classifier.backbone.get_parameter("pos_embed")
        outputs |= {f"{name}_{suffix}": value for name, value in watched(classifier, x).items()}
    return outputs


def tokens_in(case: Case, frames: int, grid: list[int]) -> Tokens:
    """The tokens of so many frames; they must be the grid (mel, time) that the case states."""
    config = case["config"]
    tokens = tokens_of(frames, config["mel_bins"], time_first(config["patch"]), time_first(config["stride"]))
    if tokens.grid != time_first(grid):
        raise AssertionError(f"{frames} frames make a grid of {tokens.grid} (time, mel), not {time_first(grid)}")
    return tokens


def trained(case: Case, frames: int, grid: list[int]) -> ClipClassifier:
    """The classifier with the case's weights, for the input they were made for, which the loader must find out."""
    config, prefix = case["config"], case["checkpoint"]["prefix"]
    unused = [name for name, _ in case["tensors"] if name.removeprefix(prefix).startswith(IMAGENET_HEADS)]
    start = loaded(case, unused)
    if (start.grid, start.patch) != (time_first(grid), time_first(config["patch"])):
        raise AssertionError(f"the loader took the weights for those of grid {start.grid}, patch {start.patch}")
    backbone = backbone_named("ast", config)
    if backbone is None or start.backbone_name != backbone:
        raise AssertionError(f"the loader took the weights for {start.backbone_name}, the case is of {backbone}")
    model = Model(backbone=backbone, head=ClipHead(kind="clip", pool="cls"))
    classifier = build_classifier(model, tokens_in(case, frames, grid), config["classes"]).eval()
    load_strictly(classifier.backbone, start.backbone)
    load_strictly(classifier.head, start.head)
    return classifier


def watched(classifier: ClipClassifier, x: Tensor) -> Outputs:
    """The logits of (B, frames, mels) features, and what passed on the way."""
    seen: Outputs = {}

    def keep(module: nn.Module, name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _given: object, out: Tensor | tuple[Tensor, ...]) -> None:
            seen[name] = out[0] if isinstance(out, tuple) else out

        return module.register_forward_hook(hook)

    backbone = classifier.backbone
    handles = [keep(backbone.patch_embed, "patch_embedding"), keep(backbone, "embedding_sequence")]
    handles += [keep(block, f"block_{place}") for place, block in enumerate(backbone.blocks)]
    handles.append(classifier.head.norm.register_forward_pre_hook(lambda _module, given: seen.update(pooled=given[0])))
    seen["logits"] = classifier(x)
    for handle in handles:
        handle.remove()
    return seen


RUN: dict[str, Callable[[Case], Outputs]] = {"ast": published_ast}
