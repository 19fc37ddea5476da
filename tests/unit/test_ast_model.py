"""AST's encoder: token order, tokens in front, first weights, and crossing to another token grid or patch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.ast import Ast
from c2ftool.models.backbone import PatchBackbone
from c2ftool.models.build import build_backbone, build_classifier, build_eat
from c2ftool.models.heads import ClipClassifier
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Rules
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.resolved import Tokens

MICRO = BACKBONES["ast_micro"]
TOKENS = tokens_of(96, 128, (16, 16))  # 6 x 8
HEAD = ClipHead(kind="clip", pool="cls")


def ast(seed: int = 1, tokens: Tokens = TOKENS, drop: float = 0.0) -> Ast:
    backbone = Ast(MICRO, tokens, drop)
    initialise(backbone, seed)
    return backbone.eval()


def classifier(seed: int = 1, tokens: Tokens = TOKENS, classes: int = 3) -> ClipClassifier:
    built = build_classifier(Model(backbone="ast_micro", head=HEAD), tokens, classes)
    initialise(built, seed)
    return built


def features(clips: int = 2, frames: int = 96, seed: int = 5) -> Tensor:
    return torch.randn(clips, frames, 128, generator=torch.Generator().manual_seed(seed))


def widened(factor: int, mel: int = 1, frames: int = 128) -> Tokens:
    return tokens_of(frames, 128, (16 * factor, 16 * mel))


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [(16, 16), (10, 10)])
def test_tokens_are_mel_major_as_published(stride: tuple[int, int]) -> None:
    tokens = tokens_of(96, 128, (16, 16), stride)
    backbone, x = ast(tokens=tokens), features(1)
    assert backbone.grid(96) == tokens.grid
    changed = x.clone()
    frame, band = 2 * stride[0] + 3, 5 * stride[1] + 2
    changed[0, frame, band] += 1.0
    moved = (backbone.embed(changed) - backbone.embed(x)).abs().amax(-1)[0].nonzero().flatten().tolist()
    reached = [
        f * tokens.time + t
        for f in range(tokens.frequency)
        for t in range(tokens.time)
        if 0 <= frame - t * stride[0] < 16 and 0 <= band - f * stride[1] < 16
    ]
    assert moved == reached
    assert 5 * tokens.time + 2 in reached and len(reached) == (1 if stride == (16, 16) else 4)


def test_class_and_distillation_token_come_first_and_have_positions_of_their_own() -> None:
    backbone, x = ast(), features()
    out = backbone(x)
    assert out.shape == (2, 2 + 48, 96)
    embedded = backbone.embed(x)
    torch.testing.assert_close(backbone.encode(embedded), out)
    fronts = torch.cat([backbone.cls_token, backbone.dist_token], 1) + backbone.pos_embed[:, :2]
    whole = torch.cat([fronts.expand(2, -1, -1), embedded], 1)
    for block in backbone.blocks:
        whole, _ = block(whole)
    torch.testing.assert_close(backbone.norm(whole), out)
    with torch.no_grad():
        backbone.pos_embed[:, 1] += 1  # of the distillation token: embedded patches know nothing of it
    assert torch.equal(backbone.embed(x), embedded)
    assert not torch.allclose(backbone(x), out)


def test_a_token_has_its_own_position() -> None:
    backbone, x = ast(), features(1)
    before = backbone.embed(x)
    with torch.no_grad():
        backbone.pos_embed[0, 2 + 5 * 6 + 2] += 1
    moved = (backbone.embed(x) - before).abs().amax(-1)[0]
    assert moved.nonzero().flatten().tolist() == [5 * 6 + 2]


def test_clip_is_the_mean_of_both_front_tokens_and_sequence_is_in_time_order() -> None:
    backbone, x = ast(), features()
    out = backbone(x)
    torch.testing.assert_close(backbone.clip(x), (out[:, 0] + out[:, 1]) / 2)
    sequence = backbone.sequence(x)
    assert sequence.shape == (2, 6, 96)
    for t in range(6):
        bands = torch.stack([out[:, 2 + f * 6 + t] for f in range(8)])
        torch.testing.assert_close(sequence[:, t], bands.mean(0))


def test_the_head_scores_the_mean_of_both_front_tokens() -> None:
    built, x = classifier().eval(), features()
    assert built.head.norm.eps == 1e-5 and isinstance(built.backbone, Ast) and built.backbone.norm.eps == 1e-6
    torch.testing.assert_close(built(x), built.head.fc(built.head.norm(built.backbone.clip(x))))


@pytest.mark.parametrize("frames", [80, 112, 192])
def test_an_input_of_another_grid_is_refused(frames: int) -> None:
    with pytest.raises(
        ValueError, match=rf"{frames} frames make {frames // 16} x 8 tokens; positions are for \(6, 8\)"
    ):
        ast()(features(1, frames))


def test_frames_that_fill_no_patch_are_left_out() -> None:
    backbone, x = ast(), features(1)
    torch.testing.assert_close(backbone(torch.cat([x, torch.ones(1, 15, 128)], dim=1)), backbone(x))


def test_dropped_branches_follow_the_draw_of_the_rows_and_only_in_training() -> None:
    backbone, x = ast(drop=0.9), features(4)
    draw = Draw(7, 0, 3, torch.arange(4))
    assert torch.equal(backbone(x, draw), backbone(x))
    backbone.train()
    whole = backbone(x, draw)
    assert not torch.allclose(whole, backbone(x))
    torch.testing.assert_close(backbone(x[1:3], draw.select(slice(1, 3))), whole[1:3])


def test_a_backbone_is_of_the_family_that_its_name_says() -> None:
    assert isinstance(build_backbone(Model(backbone="ast_micro"), TOKENS), Ast)
    with pytest.raises(ValueError, match="ast_micro is no EAT encoder"):
        build_eat(Model(backbone="ast_micro"), TOKENS)


# --- first weights ----------------------------------------------------------------------------------------------------


def test_first_weights_are_a_function_of_the_seed() -> None:
    one, again, other = (ast(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    drawn = {name for name in one if not torch.equal(one[name], other[name])}
    assert drawn == {name for name in one if "norm" not in name and not name.endswith(".bias")}
    inside = classifier(1).backbone.state_dict()  # an encoder starts alike by itself and in a classifier
    assert all(torch.equal(one[name], inside[name]) for name in one)


def test_first_weights_are_deits() -> None:
    for name, tensor in ast().state_dict().items():
        if name.endswith(".bias"):
            assert not tensor.any()
        elif "norm" in name:
            assert bool((tensor == 1).all())
        elif name == "patch_embed.proj.weight":
            bound = (6 / (96 + 256)) ** 0.5
            assert 0.9 * bound < tensor.abs().max() <= bound
        else:
            sure = 0.05 * (96 / tensor.numel()) ** 0.5 * 6  # six standard errors and more, of 96 values or of many
            assert abs(tensor.std() / 0.02 - 1) < 0.02 + sure and tensor.abs().max() < 0.2, name


def test_a_part_can_be_started_afresh_without_the_others() -> None:
    built, first = classifier(1), classifier(1).state_dict()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(1)
    initialise(built, 1, only={"backbone.pos_embed"})
    after = built.state_dict()
    assert torch.equal(after["backbone.pos_embed"], first["backbone.pos_embed"])
    assert all(torch.equal(after[n], first[n] + 1) for n in first if n != "backbone.pos_embed")


# --- another grid, another patch --------------------------------------------------------------------------------------


def stretched(x: Tensor, patch: tuple[int, int], factors: tuple[int, int]) -> Tensor:
    """Every patch of (B, frames, mels) bilinearly enlarged by itself, as PI has it of a wide patch."""
    clips, frames, mels = x.shape
    grid = (frames // patch[0], mels // patch[1])
    parts = x.view(clips, grid[0], patch[0], grid[1], patch[1]).permute(0, 1, 3, 2, 4).flatten(0, 2)[:, None]
    wide = (patch[0] * factors[0], patch[1] * factors[1])
    large = F.interpolate(parts.double(), size=wide, mode="bilinear")[:, 0].float()
    return large.view(clips, *grid, *wide).permute(0, 1, 3, 2, 4).reshape(clips, grid[0] * wide[0], grid[1] * wide[1])


@pytest.mark.parametrize("name", ["ast_micro", "eat_tiny"])
@pytest.mark.parametrize(("factor", "mel"), [(2, 1), (4, 1), (8, 1), (2, 2)])
def test_pi_makes_a_stretched_input_give_the_same_tokens(name: str, factor: int, mel: int) -> None:
    small = tokens_of(48, 64, (16, 16))
    backbone = build_backbone(Model(backbone=name), small)
    initialise(backbone, 1)
    x = torch.randn(2, 48, 64, generator=torch.Generator().manual_seed(2))
    before = backbone.embed(x)
    changes = backbone.resize(tokens_of(48 * factor, 64 * mel, (16 * factor, 16 * mel)), Rules(patch_kernel="pi"))
    assert [change.name for change in changes] == ["patch_embed.proj.weight"]  # the grid is the same
    after = backbone.embed(stretched(x, (16, 16), (factor, mel)))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_a_bilinear_kernel_answers_louder_the_wider_it_is() -> None:
    backbone, x = ast(tokens=tokens_of(48, 128, (16, 16))), torch.ones(1, 48, 128)
    before = backbone.patch_embed(x)
    backbone.resize(tokens_of(192, 128, (64, 16)), Rules(patch_kernel="bilinear"))
    torch.testing.assert_close(backbone.patch_embed(torch.ones(1, 192, 128)), 4 * before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ast_micro", "eat_tiny"])
def test_there_and_back_restores_every_shape(name: str) -> None:
    backbone = build_backbone(Model(backbone=name), widened(1))
    initialise(backbone, 1)
    shapes = {n: tuple(t.shape) for n, t in backbone.state_dict().items()}
    first = {n: t.clone() for n, t in backbone.state_dict().items()}
    x = features(1, 128)
    for factor in (4, 1):
        changes = backbone.resize(widened(factor), Rules())
        assert {change.name for change in changes} == {*backbone.sized} | (
            {"positions"} if name == "eat_tiny" else set()
        )
        assert backbone(x).shape == (1, backbone.prefix + widened(factor).count, 96)
    after = backbone.state_dict()
    assert {n: tuple(t.shape) for n, t in after.items()} == shapes and list(after) == list(shapes)
    assert all(torch.equal(after[n], first[n]) for n in shapes if n not in backbone.sized)


def test_resizing_keeps_what_is_frozen_frozen_and_other_parameters_themselves() -> None:
    backbone = ast()
    backbone.requires_grad_(False)
    backbone.norm.requires_grad_(True)
    same = dict(backbone.named_parameters())
    backbone.resize(tokens_of(96, 128, (32, 16)), Rules())
    now = dict(backbone.named_parameters())
    assert list(now) == list(same)
    assert {n for n in now if now[n] is not same[n]} == {"pos_embed", "patch_embed.proj.weight"}
    assert {n for n, p in now.items() if p.requires_grad} == {"norm.weight", "norm.bias"}
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in now.values())


def test_resizing_stays_on_the_device_and_in_the_type() -> None:
    with torch.device("meta"):
        elsewhere = Ast(MICRO, TOKENS)
    elsewhere.resize(tokens_of(96, 128, (32, 16)), Rules())
    assert all(p.is_meta for p in elsewhere.parameters())
    half = ast().bfloat16()
    half.resize(tokens_of(96, 128, (32, 16)), Rules())
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_the_same_tokens_change_nothing() -> None:
    backbone = ast()
    same = dict(backbone.named_parameters())
    assert backbone.resize(TOKENS.model_copy(), Rules()) == []
    assert all(p is same[n] for n, p in backbone.named_parameters())


def test_frames_to_spare_move_no_weight() -> None:
    backbone = ast()
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    assert backbone.resize(tokens_of(103, 128, (16, 16)), Rules()) == []  # 6 x 8 tokens as before
    assert backbone.tokens.frames == 103 and all(torch.equal(t, before[n]) for n, t in backbone.state_dict().items())


def train(built: ClipClassifier, steps: int, seed: int = 0) -> list[float]:
    """Losses of so many steps on eight fixed clips."""
    assert isinstance(built.backbone, PatchBackbone)
    x = features(8, built.backbone.tokens.frames, seed)
    labels = torch.arange(8) % 3
    optimizer = torch.optim.Adam(built.parameters(), 1e-3)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(built.train()(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_it_trains_and_goes_on_training_after_a_border() -> None:
    built = classifier(tokens=tokens_of(96, 128, (32, 16)))
    coarse = train(built, 12)
    assert coarse[-1] < 0.5 * coarse[0]
    assert isinstance(built.backbone, Ast)
    built.backbone.resize(TOKENS, Rules())
    fine = train(built, 12)
    assert fine[-1] < 0.5 * min(fine[0], coarse[0])
    assert all(p.grad is not None and bool(p.grad.any()) for p in built.parameters())
