"""Weights of every family, written in its published layout and read again through the loader: nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from c2ftool.models.build import build_backbone, build_classifier
from c2ftool.models.frames import FrameHead
from c2ftool.models.initialise import initialise
from c2ftool.models.public.account import State
from c2ftool.models.public.writing import WRITTEN, Parts, published
from c2ftool.models.weights import starting_weights
from c2ftool.objectives.ssast import SsastStudent
from c2ftool.spec import objective as spec_objective
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import NoCompression
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.layout import compressed, full_frontend
from c2ftool.spec.model import ClipHead, Model, TokenSemanticHead
from c2ftool.spec.resolved import Tokens

SIZES = {"eat": "eat_tiny"} | {family: f"{family}_micro" for family in WRITTEN if family not in ("eat", "ssast")}
SIZES |= {"ssast": "ssast_patch_micro"}
FRAMES = ("beats", "atst", "fpasst", "m2d", "asit")


def tokens_in(name: str) -> Tokens:
    size = BACKBONES[name]
    front = full_frontend(Frontend(), size, 0.0, 1.0)  # the published length: the table of positions tells the grid
    return compressed(front, NoCompression(method="none"), size, size.patch)[1]


def state(module: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def read_again(family: str, parts: Parts, path: Path):
    torch.save(published(family, parts).content, path)
    return starting_weights(path)


def equal(ours: State, theirs: State | None) -> bool:
    return theirs is not None and ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_every_family_is_written() -> None:
    assert set(WRITTEN) == {size.family for size in BACKBONES.values()} == SIZES.keys()


@pytest.mark.parametrize("family", [f for f in WRITTEN if f not in FRAMES or f == "beats"])
def test_a_classifier_comes_back_as_it_was(family: str, tmp_path: Path) -> None:
    name = SIZES[family]
    head = TokenSemanticHead(kind="token_semantic") if family == "htsat" else ClipHead(kind="clip")
    tokens = tokens_in(name)
    classifier = build_classifier(Model(backbone=name, head=head), tokens, 5)
    initialise(classifier, 1)
    parts = Parts(state(classifier.backbone), state(classifier.head), grid=tokens.grid)
    start = read_again(family, parts, tmp_path / "published.pt")
    # a fine-tuned SSAST is an AST file
    assert start.family == ("ast" if family == "ssast" else family)
    assert equal(parts.backbone, start.backbone) and equal(parts.head or {}, start.head)
    assert start.patch in (None, (tokens.patch[0], tokens.patch[1]))


@pytest.mark.parametrize("family", FRAMES)
def test_heads_of_frames_come_back_as_they_were(family: str, tmp_path: Path) -> None:
    name = SIZES[family]
    tokens = tokens_in(name)
    backbone = build_backbone(Model(backbone=name), tokens)
    heads = FrameHead(5 * backbone.width if family == "m2d" else backbone.width, 4, 250, weak_classes=3)
    initialise(backbone, 2)
    initialise(heads, 2)
    start = read_again(family, Parts(state(backbone), state(heads)), tmp_path / "published.pt")
    assert start.family == family and start.backbone_name == name
    assert equal(state(backbone), start.backbone) and equal(state(heads), start.head)


def test_a_pretrained_ssast_comes_back_as_it_was(tmp_path: Path) -> None:
    for name in ("ssast_patch_micro", "ssast_frame_micro"):
        tokens = tokens_in(name)
        student = SsastStudent(Model(backbone=name), tokens, spec_objective.Ssast(kind="ssast"))
        initialise(student, 3)
        whole = state(student)
        backbone = {n.removeprefix("backbone."): t for n, t in whole.items() if n.startswith("backbone.")}
        decoder = {n.removeprefix("decoder."): t for n, t in whole.items() if not n.startswith("backbone.")}
        start = read_again("ssast", Parts(backbone, decoder=decoder, grid=tokens.grid), tmp_path / f"{name}.pt")
        assert start.family == "ssast" and start.backbone_name == name and start.grid == tokens.grid
        assert equal(backbone, start.backbone) and equal(decoder, start.decoder)


def test_a_head_that_the_layout_has_no_place_for_is_told() -> None:
    classifier = build_classifier(Model(backbone="m2d_micro", head=ClipHead(kind="clip")), tokens_in("m2d_micro"), 5)
    initialise(classifier, 1)
    made = published("m2d", Parts(state(classifier.backbone), state(classifier.head)))
    assert made.report.clean and "has no place for this head" in made.notes[0]
    with pytest.raises(ValueError, match="token-semantic head"):
        published("htsat", Parts(state(classifier.backbone)))
