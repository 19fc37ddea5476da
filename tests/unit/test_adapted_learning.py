"""Adapted networks: which parts learn, and low-rank updates merged into weights."""

import pytest
import torch
from adapted import LOAA, LORA, features, made, shaken, tokens_of

from c2ftool.adapters.freeze import freeze
from c2ftool.adapters.insert import item_of
from c2ftool.adapters.lora import merge_low_ranks
from c2ftool.models.build import build_backbone
from c2ftool.spec.adapters import Lora, Unfreeze, decided
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.model import Model


def learning(module):
    return {name for name, p in module.named_parameters() if p.requires_grad}


def test_of_a_frozen_body_adapters_and_head_learn():
    body, _ = made("ast_micro", LOAA, LORA.model_copy(update={"blocks": [1]}), freeze="body")
    names = learning(body)
    assert {n for n in names if n.startswith("head.")} == {f"head.{n}" for n, _ in body.head.named_parameters()}
    assert all(item_of(n) for n in names if n.startswith("backbone."))
    assert {item_of(n) for n in names} == {None, "a0", "a1"}
    assert all("blocks.1." in n for n in names if item_of(n) == "a1")


def test_partial_unfreezing():
    spec = {"last": 2, "norms": False, "biases": False}
    body, _ = made("ast_micro", freeze="body", unfreeze=Unfreeze(**spec))
    inside = {n.removeprefix("backbone.") for n in learning(body) if n.startswith("backbone.")}
    assert {n.split(".")[1] for n in inside if n.startswith("blocks.")} == {"2", "3"}
    assert {n for n in inside if not n.startswith("blocks.")} == {"norm.weight", "norm.bias"}
    body, _ = made("ast_micro", freeze="body", unfreeze=Unfreeze(biases=True))
    assert all(n.endswith("bias") for n in learning(body) if n.startswith("backbone."))
    body, _ = made("beats_micro", freeze="body", unfreeze=Unfreeze(norms=True))
    inside = {n for n in learning(body) if n.startswith("backbone.")}
    assert inside and all("norm" in n for n in inside)


def test_frozen_weights_get_no_gradient_and_up_learns_before_down():
    body, tokens = made("ast_micro", LOAA, freeze="body")
    body(features(tokens)).square().sum().backward()
    branch = body.backbone.blocks[0].beside_attention["@a0"]
    assert branch.up.grad.abs().sum() > 0 and branch.down.grad.abs().sum() == 0
    assert all(p.grad is None for name, p in body.named_parameters() if name not in learning(body))
    with torch.no_grad():
        branch.up -= 0.1 * branch.up.grad
    body.zero_grad()
    body(features(tokens)).square().sum().backward()
    assert branch.down.grad.abs().sum() > 0


def test_batch_norm_of_a_frozen_body_stays_as_it_is():
    from c2ftool.adapters.freeze import keep_frozen

    body, tokens = made("htsat_micro", LOAA, freeze="body")
    body.train()
    keep_frozen(body.backbone)
    assert body.backbone.training and not body.backbone.bn0.training
    before = body.backbone.bn0.running_mean.clone()
    body(features(tokens) + 3)
    assert torch.equal(before, body.backbone.bn0.running_mean)


def test_offsets_may_learn_where_statistics_stay():
    """Batch norms of a frozen body, those of several devices too, whatever their offset does."""
    from c2ftool.adapters.freeze import keep_frozen
    from c2ftool.engine.batch_norm import GatheredBatchNorm

    for gathered in (False, True):
        body, _ = made("htsat_micro", LOAA, freeze="body", unfreeze=Unfreeze(biases=True))
        if gathered:
            body.backbone.bn0 = GatheredBatchNorm(body.backbone.bn0)
        body.train()
        keep_frozen(body.backbone)
        assert body.backbone.bn0.bias.requires_grad and not body.backbone.bn0.training


@pytest.mark.parametrize("name", ["train", "type", "forward", "keys", "attn", "blocks", "lora"])
def test_an_item_may_be_called_anything(name):
    items = LOAA.model_copy(update={"name": name}), LORA.model_copy(update={"name": f"{name}2"})
    body, tokens = made("ast_micro", *items)
    found = {item_of(key) for key in body.state_dict()}
    assert found == {None, name, f"{name}2"}
    body(features(tokens))


def test_a_body_that_learns_is_not_touched():
    body, _ = made("ast_micro", LOAA, freeze="none")
    freeze(body.backbone, Model(backbone="ast_micro", freeze="none"))
    assert learning(body) == {name for name, _ in body.named_parameters()}


# --- low rank --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["ast_micro", "beats_micro", "htsat_micro", "eat_tiny"])
def test_merged_updates_compute_the_same(backbone):
    body, tokens = made(backbone, LORA, LORA.model_copy(update={"rank": 3, "rslora": True}))
    shaken(body)
    x = features(tokens)
    before = body(x)
    plain, _ = made(backbone)
    merged = merge_low_ranks(body)
    assert len(merged) == BACKBONES[backbone].depth * (6 if backbone.startswith("beats") else 4)
    torch.testing.assert_close(body(x), before, rtol=1e-4, atol=1e-5)
    assert not torch.equal(body(x), plain(x))
    assert body.state_dict().keys() == plain.state_dict().keys()


def test_the_scale_of_an_update_is_alpha_over_the_rank():
    for item, scale in (
        (Lora(kind="lora", rank=4, alpha=2), 0.5),
        (Lora(kind="lora", rank=4, alpha=2, rslora=True), 1),
    ):
        body, _ = made("ast_micro", item)
        assert body.backbone.blocks[0].attn.qkv.lora["@a0"].scale == scale


def test_a_network_without_blocks_takes_none():
    with pytest.raises(ValueError, match="no transformer blocks"):
        build_backbone(Model(backbone="cnn14_micro"), tokens_of("cnn14_micro", 512), decided([LORA], [1]))
