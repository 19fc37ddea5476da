"""Optimisers: AST's Adam is torch's on every tensor; AdamW decays matrices alone; rates by layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from c2ftool.engine.optimizer import build_optimizer, moments, set_moments, set_rate
from c2ftool.models.build import build_classifier
from c2ftool.models.heads import ClipClassifier
from c2ftool.models.initialise import initialise
from c2ftool.objectives.classify import ClassifyObjective
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.objective import Classify
from c2ftool.spec.train import Adam, AdamW

CPU = torch.device("cpu")


def classifier() -> ClipClassifier:
    built = build_classifier(
        Model(backbone="ast_micro", head=ClipHead(kind="clip", pool="cls")), tokens_of(32, 64, (16, 16)), 5
    )
    initialise(built, 1)
    return built


def give_gradients(module: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_adam_is_torchs_with_l2_on_all_tensors() -> None:
    ours, theirs, plain = classifier(), classifier(), classifier()
    spec = Adam(kind="adam", lr=1e-3, betas=[0.95, 0.999], weight_decay=0.1)
    optimizer = build_optimizer(ours.named_parameters(), spec, 4)
    other = torch.optim.Adam(theirs.parameters(), 1e-3, (0.95, 0.999), weight_decay=0.1, fused=True)
    undecayed = torch.optim.Adam(plain.parameters(), 1e-3, (0.95, 0.999), fused=True)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(ours.parameters()))
    for step in range(5):
        rate = 1e-3 * (step + 1)
        set_rate(optimizer, rate)
        other.param_groups[0]["lr"] = undecayed.param_groups[0]["lr"] = rate
        for module, by in ((ours, optimizer), (theirs, other), (plain, undecayed)):
            give_gradients(module, step)
            by.step()
    assert same(ours, theirs)
    # the decay reaches each of them, biases, norms and tokens too
    pairs = zip(ours.named_parameters(), plain.parameters(), strict=True)
    assert all(not torch.equal(mine, undecayed_) for (_, mine), undecayed_ in pairs)


def test_adamw_decays_matrices_and_leaves_biases_and_norms() -> None:
    ours, plain = classifier(), classifier()
    optimizer = build_optimizer(ours.named_parameters(), AdamW(kind="adamw", lr=1e-2, weight_decay=0.5), 4)
    other = torch.optim.AdamW(plain.parameters(), 1e-2, weight_decay=0.0, fused=True)
    for module, by in ((ours, optimizer), (plain, other)):
        give_gradients(module, 0)
        by.step()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs) == (mine.ndim == 1), name


@pytest.mark.parametrize("spec", [Adam(kind="adam", lr=1e-3), AdamW(kind="adamw", lr=1e-3)])
def test_layer_decay_slows_the_first_blocks_with_either_kind(spec: Adam | AdamW) -> None:
    module = classifier()
    decayed = spec.model_copy(update={"layer_decay": 0.5})
    layers = ClassifyObjective(module, Classify(kind="classify", loss="ce")).layers()
    optimizer = build_optimizer(module.named_parameters(), decayed, *layers)
    set_rate(optimizer, 0.8)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates["backbone.blocks.0.attn.qkv.weight"] == 0.8 / 16 and rates["backbone.blocks.3.mlp.fc2.bias"] == 0.4
    assert rates["backbone.pos_embed"] == rates["head.fc.weight"] == rates["backbone.norm.weight"] == 0.8


def test_moments_by_name_go_on_as_if_nothing_had_happened() -> None:
    whole, parted = classifier(), classifier()
    spec = AdamW(kind="adamw", lr=1e-2, layer_decay=0.7)
    optimizer = build_optimizer(whole.named_parameters(), spec, 4)
    for step in range(4):
        give_gradients(whole, step)
        optimizer.step()
    first = build_optimizer(parted.named_parameters(), spec, 4)
    assert moments(first) == {}
    for step in (0, 1):
        give_gradients(parted, step)
        first.step()
    second = build_optimizer(parted.named_parameters(), spec, 4)
    set_moments(second, moments(first) | {"of.another": {"step": torch.tensor(9.0)}})
    for step in (2, 3):
        give_gradients(parted, step)
        second.step()
    assert same(whole, parted)


def test_what_is_frozen_is_not_optimised() -> None:
    module = classifier()
    module.backbone.requires_grad_(False)
    optimizer = build_optimizer(module.named_parameters(), Adam(kind="adam", lr=1e-3, weight_decay=0.1), 4)
    names = {name for group in optimizer.param_groups for name in group["names"]}
    assert names == {"head.norm.weight", "head.norm.bias", "head.fc.weight", "head.fc.bias"}
