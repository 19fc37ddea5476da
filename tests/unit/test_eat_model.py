"""EAT's encoder: token order, positions, blocks of both orders, visible tokens, drop path, first weights."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import Block as TimmBlock

from c2ftool.draws import Draw
from c2ftool.models.build import build_backbone, build_classifier
from c2ftool.models.decoder import ConvDecoder
from c2ftool.models.eat import Eat
from c2ftool.models.initialise import initialise
from c2ftool.models.positions import MAX_TIME, sincos_2d
from c2ftool.models.vit import Block, drop_path
from c2ftool.objectives.eat import EatStudent
from c2ftool.spec import objective as spec_objective
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import ClipHead, Model

CPU = torch.device("cpu")
MICRO = BACKBONES["eat_tiny"]
TOKENS = tokens_of(96, 128, (16, 16))


def eat(drop: float = 0.0, seed: int = 1) -> Eat:
    backbone = Eat(MICRO, TOKENS, drop)
    initialise(backbone, seed)
    return backbone


def draw(rows: int, step: int = 3, first: int = 0) -> Draw:
    return Draw(7, 0, step, torch.arange(first, first + rows))


def features(clips: int = 2, frames: int = 96) -> torch.Tensor:
    return torch.randn(clips, frames, 128, generator=torch.Generator().manual_seed(5))


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_tokens_are_time_major_and_one_patch_reaches_one_token():
    backbone, x = eat(), features(1)
    assert backbone.grid(96) == (6, 8)
    changed = x.clone()
    changed[0, 2 * 16 + 3, 5 * 16 + 7] += 1.0  # time patch 2, frequency patch 5
    moved = (backbone.embed(changed) - backbone.embed(x)).abs().amax(-1)[0]
    assert moved.nonzero().flatten().tolist() == [2 * 8 + 5]


def test_what_fills_no_patch_is_left_out():
    backbone, x = eat(), features(1, 96)
    longer = torch.cat([x, torch.ones(1, 15, 128)], dim=1)
    torch.testing.assert_close(backbone(longer), backbone(x))


def test_forward_puts_cls_first_and_sequence_and_clip_read_it_so():
    backbone, x = eat().eval(), features()
    out = backbone(x)
    assert out.shape == (2, 1 + 48, 96)
    torch.testing.assert_close(backbone.clip(x), out[:, 0])
    sequence = backbone.sequence(x)
    assert sequence.shape == (2, 6, 96)
    torch.testing.assert_close(sequence[:, 4], out[:, 1 + 4 * 8 : 1 + 5 * 8].mean(1))


@settings(max_examples=20)
@given(st.integers(1, 60), st.integers(1, 12), st.sampled_from([4, 8, 96]))
def test_positions_hold_frequency_then_time_each_sine_then_cosine(time, frequency, width):
    table = sincos_2d(time, frequency, width, CPU).view(time, frequency, 4, width // 4)
    rates = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    for t in {0, time - 1}:
        for f in {0, frequency - 1}:
            expected = [np.sin(f * rates), np.cos(f * rates), np.sin(t * rates), np.cos(t * rates)]
            np.testing.assert_allclose(table[t, f], np.stack(expected), atol=1e-6)


def test_positions_of_a_short_clip_are_the_first_of_a_long_one():
    torch.testing.assert_close(sincos_2d(5, 8, 96, CPU), sincos_2d(MAX_TIME, 8, 96, CPU)[:40], rtol=0, atol=0)


def test_positions_end_where_the_published_table_does():
    with pytest.raises(ValueError, match="769 time patches"):
        sincos_2d(MAX_TIME + 1, 8, 96, CPU)


def test_counting_on_the_meta_device_does_not_spoil_the_cached_positions():
    sincos_2d.cache_clear()
    with torch.device("meta"):
        assert Eat(MICRO, TOKENS)(torch.empty(1, 96, 128)).is_meta
    assert torch.isfinite(eat()(features())).all()


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_pre_norm_block_is_timms():
    ours, theirs = Block(96, 3, 384, "pre"), TimmBlock(96, 3, qkv_bias=True)
    for norm in (theirs.norm1, theirs.norm2):
        norm.eps = 1e-6
    ours.load_state_dict(theirs.state_dict())  # the same names
    x = torch.randn(2, 7, 96)
    torch.testing.assert_close(ours(x)[0], theirs(x))


def test_post_norm_block_is_timms_parts_in_the_other_order():
    ours, theirs = Block(96, 3, 384, "post"), TimmBlock(96, 3, qkv_bias=True)
    for norm in (theirs.norm1, theirs.norm2):
        norm.eps = 1e-6
        torch.nn.init.normal_(norm.weight, 1, 0.1)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 7, 96)
    middle = theirs.norm1(x + theirs.attn(x))
    out, branch = ours(x)
    torch.testing.assert_close(branch, theirs.mlp(middle))
    torch.testing.assert_close(out, theirs.norm2(middle + theirs.mlp(middle)))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 96 is not a multiple of 5 heads"):
        Block(96, 5, 384, "post")


def test_targets_are_the_wanted_mlp_outputs_without_cls():
    backbone, x = eat().eval(), features()
    seen = []
    for block in backbone.blocks:
        block.mlp.register_forward_hook(lambda _module, _given, out: seen.append(out))
    found = backbone.targets(x, [0, 2])
    assert len(seen) == 3  # the last block is not needed and not run
    torch.testing.assert_close(found, [seen[0][:, 1:], seen[2][:, 1:]])


# --- visible tokens ---------------------------------------------------------------------------------------------------


def test_clones_that_see_everything_see_the_whole_clip():
    backbone, x = eat().eval(), features()
    everything = torch.arange(48).expand(6, -1)
    torch.testing.assert_close(
        backbone.forward_visible(x, everything), backbone(x).repeat_interleave(3, dim=0), rtol=1e-5, atol=1e-5
    )


def test_what_is_not_visible_has_no_influence():
    backbone, x = eat().eval(), features(1)
    visible = torch.tensor([[3, 17, 40]])
    changed = x.clone()
    changed[0, 16:32, :16] += 5.0  # token 8
    torch.testing.assert_close(backbone.forward_visible(x, visible), backbone.forward_visible(changed, visible))
    assert not torch.allclose(backbone(x)[:, 0], backbone(changed)[:, 0])


# --- drop path --------------------------------------------------------------------------------------------------------


def test_drop_path_rises_linearly_and_keeps_the_mean():
    factors = drop_path([0.0, 0.25, 0.5], draw(4000))
    assert factors[0] is None
    for rate, factor in ((0.25, factors[1]), (0.5, factors[2])):
        assert factor.shape == (2, 4000, 1, 1)
        assert factor.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
        assert factor.mean(1).flatten().tolist() == pytest.approx([1, 1], abs=0.08)
    assert not torch.equal(factors[2][0], factors[2][1])  # the branches are drawn apart
    assert eat(0.3).drop_path == pytest.approx([0, 0.1, 0.2, 0.3])


def test_drop_path_of_a_row_does_not_depend_on_its_micro_batch():
    backbone, x = eat(0.5).train(), features(6)
    whole = backbone(x, draw(6))
    parts = [backbone(x[start : start + 2], draw(2, first=start)) for start in (0, 2, 4)]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(whole, backbone(x, draw(6, step=4)))


def test_drop_path_is_for_training_with_draws_only():
    backbone, x = eat(0.5), features()
    plain = eat(0.0).train()(x, draw(2))
    torch.testing.assert_close(backbone.eval()(x, draw(2)), plain)
    torch.testing.assert_close(backbone.train()(x), plain)


# --- first weights ----------------------------------------------------------------------------------------------------


def test_first_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(0)
    first = eat(seed=4).state_dict()
    torch.manual_seed(99)
    again, other = eat(seed=4).state_dict(), eat(seed=5).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.0.mlp.fc1.weight"], other["blocks.0.mlp.fc1.weight"])


def test_an_encoder_starts_alike_by_itself_in_a_classifier_and_in_a_student():
    model = Model(backbone="eat_tiny", head=ClipHead(kind="clip"))
    classifier = build_classifier(model, TOKENS, 5)
    student = EatStudent(model, TOKENS, spec_objective.Eat(kind="eat"))
    initialise(classifier, 3)
    initialise(student, 3)
    alone = build_backbone(model, TOKENS)
    initialise(alone, 3)
    for other in (classifier.backbone.state_dict(), student.backbone.state_dict()):
        assert all(torch.equal(value, other[name]) for name, value in alone.state_dict().items())


def test_first_weights_follow_the_published_rules():
    model = Model(backbone="eat_mini", head=ClipHead(kind="clip"))
    backbone = build_backbone(model, TOKENS)
    initialise(backbone, 0)
    for name, value in backbone.state_dict().items():
        if name == "cls_token":
            assert value.std().item() == pytest.approx(1, abs=0.15)
        elif name == "patch_embed.proj.weight":
            bound = math.sqrt(6 / (256 + 192))
            assert value.abs().max().item() <= bound
            assert value.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        elif name.endswith("bias"):
            assert not value.any(), name
        elif "norm" in name:
            assert (value == 1).all(), name
        else:
            assert value.std().item() == pytest.approx(0.02, rel=0.03), name
            assert value.mean().item() == pytest.approx(0, abs=1e-3), name
    classifier = build_classifier(model, TOKENS, 50)
    initialise(classifier, 0)
    assert classifier.head.fc.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not classifier.head.fc.bias.any()
    decoder = torch.nn.ModuleDict({"decoder": ConvDecoder(96, spec_objective.Decoder())})
    initialise(decoder, 0)
    for name, bound in (("conv", 1 / math.sqrt(6 * 9)), ("proj", 1 / math.sqrt(96))):
        layer = decoder["decoder"].blocks[0].conv if name == "conv" else decoder["decoder"].proj
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert 0 < layer.bias.abs().max().item() <= bound


def test_every_weight_learns():
    backbone = eat().train()
    out = backbone(features())
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    without = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_layer_of_names_blocks_of_the_encoder_only():
    backbone = eat()
    layers = {name: backbone.layer_of(name) for name, _ in backbone.named_parameters()}
    assert layers["blocks.3.mlp.fc2.bias"] == 3
    assert layers["blocks.0.norm1.weight"] == 0
    assert {n for n, layer in layers.items() if layer is None} == {
        "cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm_pre.weight", "norm_pre.bias",
    }  # fmt: skip


def test_autocast_keeps_the_residual_stream_in_float32():
    backbone, x = eat().eval(), features()
    with torch.autocast("cpu", torch.bfloat16):
        out = backbone(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, backbone(x), rtol=0.1, atol=0.15)


def test_decoder_at_chosen_places_is_the_decoder_there():
    decoder = ConvDecoder(96, spec_objective.Decoder(layers=2))
    tokens, at = torch.randn(3, 48, 96), torch.tensor([[0, 47], [5, 9], [11, 12]])
    whole = decoder(tokens, (6, 8))
    torch.testing.assert_close(decoder(tokens, (6, 8), at), whole.gather(1, at[..., None].expand(-1, -1, 96)))


def test_decoder_sees_neighbours_in_time_and_frequency():
    decoder = ConvDecoder(96, spec_objective.Decoder(layers=1))
    tokens = torch.randn(1, 48, 96)
    changed = tokens.clone()
    changed[0, 2 * 8 + 7] += 1.0  # the upper edge: no neighbour above it, and not the next frame's lowest
    moved = (decoder(changed, (6, 8)) - decoder(tokens, (6, 8))).abs().amax(-1)[0]
    assert moved.gt(1e-6).nonzero().flatten().tolist() == sorted(t * 8 + f for t in (1, 2, 3) for f in (6, 7))


def test_decoder_shapes_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="not a multiple of 16 decoder groups"):
        ConvDecoder(100, spec_objective.Decoder())
    with pytest.raises(ValueError, match="kernel 4 is even"):
        ConvDecoder(96, spec_objective.Decoder(kernel=4))


def test_an_unknown_family_is_refused(monkeypatch):
    monkeypatch.setitem(BACKBONES, "eat_tiny", dataclasses.replace(MICRO, family="other"))
    with pytest.raises(ValueError, match="unknown family of backbones 'other'"):
        build_backbone(Model(backbone="eat_tiny"), TOKENS)
