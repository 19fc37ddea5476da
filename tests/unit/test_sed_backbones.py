"""ATST-Frame, fPaSST, M2D and ASiT: token order, tokens in front, positions, chunks, another length."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.asit import Asit
from c2ftool.models.atst import Atst
from c2ftool.models.backbone import PatchBackbone
from c2ftool.models.fpasst import Fpasst
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Rules, Shape, fit
from c2ftool.models.m2d import M2d
from c2ftool.models.vit import Block
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import CHUNK, tokens_of
from c2ftool.spec.resolved import Tokens

FAMILIES: dict[str, type[PatchBackbone]] = {"atst": Atst, "fpasst": Fpasst, "m2d": M2d, "asit": Asit}
SHORT = {"atst": 24, "fpasst": 24, "m2d": 96, "asit": 96}  # frames of 6 tokens in time
TABLES = {"atst": "pos_embed", "fpasst": "time_pos", "m2d": "pos_embed", "asit": "pos_embed"}
every = pytest.mark.parametrize("family", FAMILIES)


def tokens_for(family: str, frames: int) -> Tokens:
    size = BACKBONES[f"{family}_micro"]
    return tokens_of(frames, size.frontend.mels, size.patch, size.patch, size.grid)


def built(family: str, frames: int | None = None, seed: int = 1, drop: float = 0.0) -> PatchBackbone:
    """A small backbone in evaluation, its first weights but for tokens and positions ten times as large."""
    tokens = tokens_for(family, frames or SHORT[family])
    backbone = FAMILIES[family](BACKBONES[f"{family}_micro"], tokens, drop)
    initialise(backbone, seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 3:
                parameter.mul_(10)
    return backbone.eval()


def features(backbone: PatchBackbone, clips: int = 2, seed: int = 5, frames: int | None = None) -> Tensor:
    shape = (clips, frames or backbone.tokens.frames, backbone.tokens.mels)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- all four ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "frames", "millions", "time"),
    [("atst", 1001, 85.4, 250), ("fpasst", 1000, 88.4, 250), ("m2d", 1001, 85.5, 62), ("asit", 592, 85.5, 37)],
)
def test_the_published_size_has_the_published_parameters(family: str, frames: int, millions: float, time: int) -> None:
    size = BACKBONES[f"{family}_base"]
    tokens = tokens_of(frames, size.frontend.mels, size.patch, size.patch, size.grid)
    with torch.device("meta"):
        backbone = FAMILIES[family](size, tokens)
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 1) == millions
    assert tokens.time == time


@every
def test_the_tokens_in_front_come_first_and_the_sequence_is_in_time_order(family: str) -> None:
    backbone = built(family)
    x, (time, frequency) = features(backbone), backbone.tokens.grid
    out = backbone(x)
    assert out.shape == (2, backbone.prefix + time * frequency, 96)
    torch.testing.assert_close(backbone.encode(backbone.embed(x)), out)
    sequence = backbone.sequence(x)
    assert sequence.shape == (2, time, 96)
    for t in range(time):
        places = [f * time + t if backbone.mel_major else t * frequency + f for f in range(frequency)]
        torch.testing.assert_close(sequence[:, t], out[:, [backbone.prefix + p for p in places]].mean(1))


@every
def test_the_order_is_norm_attention_norm_mlp_and_a_last_norm(family: str) -> None:
    backbone = built(family)
    seen: list[Tensor] = []
    handle = backbone.blocks[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    out = backbone(features(backbone))
    handle.remove()
    x = seen[0]
    assert torch.equal(x[:, backbone.prefix :], backbone.embed(features(backbone)))
    for block in backbone.blocks:
        assert isinstance(block, Block)
        assert block.norm1.eps == block.norm2.eps == 1e-6
        x = x + block.attn(block.norm1(x))
        x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
    norm = backbone.get_submodule("norm")
    assert isinstance(norm, nn.LayerNorm) and norm.eps == 1e-6
    torch.testing.assert_close(norm(x), out)


@pytest.mark.parametrize("family", ["atst", "m2d", "asit"])
def test_the_blocks_get_tokens_row_by_row(family: str) -> None:
    backbone = built(family)
    seen: list[Tensor] = []
    backbone.blocks[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    backbone(features(backbone))
    assert seen[0].is_contiguous()  # else every norm copies


@every
def test_another_length_is_refused(family: str) -> None:
    backbone = built(family)
    for factor in (2, 3):
        frames = SHORT[family] * factor
        with pytest.raises(ValueError, match=rf"{frames} frames make \d+ .*tokens; positions are for"):
            backbone(features(backbone, 1, frames=frames))


@every
def test_a_shorter_input_is_given_the_first_positions(family: str) -> None:
    longer = built(family, SHORT[family] * 2)
    x = features(longer)[:, : SHORT[family]]
    (time, frequency), table = longer.tokens.grid, longer.get_parameter(TABLES[family]).detach().clone()
    longer.resize(tokens_for(family, SHORT[family]), Rules(positions="first"))
    with torch.no_grad():
        before = longer.embed(x)
        longer.get_parameter(TABLES[family]).zero_()
        given = before - longer.embed(x)
    shape = (frequency, time) if longer.mel_major else (time, frequency)
    rows = table[0, -time * frequency :].unflatten(0, shape)
    rows = rows[:, : time // 2] if longer.mel_major else rows[: time // 2]
    torch.testing.assert_close(given, rows.flatten(0, 1).expand(2, -1, -1), rtol=1e-4, atol=1e-5)


@every
def test_there_and_back_restores_every_shape_and_leaves_the_rest_alone(family: str) -> None:
    backbone = built(family)
    first = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    for frames in (SHORT[family] * 2, SHORT[family]):
        tokens = tokens_for(family, frames)
        assert [change.name for change in backbone.resize(tokens, Rules())] == [TABLES[family]]
        assert backbone(features(backbone)).shape == (2, backbone.prefix + tokens.count, 96)
    after = backbone.state_dict()
    assert list(after) == list(first) and all(after[name].shape == first[name].shape for name in first)
    assert all(torch.equal(after[name], first[name]) for name in first if name != TABLES[family])


@pytest.mark.parametrize("family", ["atst", "m2d", "asit"])
def test_a_wider_patch_answers_to_a_stretched_input_as_before(family: str) -> None:
    backbone = built(family)
    x, size = features(backbone), backbone.size
    before = backbone.embed(x)
    parts = x.transpose(1, 2).unflatten(2, (-1, size.patch[0])).flatten(0, 2)[:, None]  # each patch by itself
    wide = F.interpolate(parts, size=2 * size.patch[0], mode="linear")[:, 0].view(2, x.shape[2], -1).transpose(1, 2)
    patch = (2 * size.patch[0], size.patch[1])
    changes = backbone.resize(tokens_of(wide.shape[1], x.shape[2], patch, patch, size.grid), Rules(patch_kernel="pi"))
    assert [change.name for change in changes] == ["patch_embed.proj.weight"]
    torch.testing.assert_close(backbone.embed(wide), before, rtol=1e-4, atol=1e-4)


@every
def test_first_weights_are_a_function_of_the_seed(family: str) -> None:
    one, again, other = (built(family, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    drawn = {name for name in one if not torch.equal(one[name], other[name])}
    assert drawn == {name for name in one if "norm" not in name and not name.endswith(".bias")}


@every
def test_dropped_branches_follow_the_draw_of_the_rows_and_only_in_training(family: str) -> None:
    backbone = built(family, drop=0.9)
    x, draw = features(backbone, 4), Draw(7, 0, 3, torch.arange(4))
    assert torch.equal(backbone(x, draw), backbone(x))
    backbone.train()
    whole = backbone(x, draw)
    assert not torch.allclose(whole, backbone(x))
    torch.testing.assert_close(backbone(x[1:3], draw.select(slice(1, 3))), whole[1:3])


@every
def test_it_trains(family: str) -> None:
    backbone = built(family)
    head = nn.Linear(96, 3)
    nn.init.zeros_(head.weight)
    x, labels = features(backbone, 6), torch.arange(6) % 3
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], 1e-3)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(head(backbone.train().sequence(x).mean(1)), labels)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and bool(p.grad.any()) for p in backbone.parameters())


@every
def test_with_layer_decay_what_is_before_the_blocks_learns_as_the_first_and_the_norm_as_the_last(family: str) -> None:
    backbone = built(family)
    for name, _ in backbone.named_parameters():
        layer = backbone.layer_of(name)
        expected = int(name.split(".")[1]) if name.startswith("blocks.") else 3 if name.startswith("norm.") else 0
        assert layer == expected, name


# --- each by itself ---------------------------------------------------------------------------------------------------


def moved_tokens(backbone: PatchBackbone, frame: int, band: int) -> list[int]:
    """The embedded tokens that one value of the features reaches."""
    x = features(backbone, 1)
    changed = x.clone()
    changed[0, frame, band] += 10.0
    return (backbone.embed(changed) - backbone.embed(x)).abs().amax(-1)[0].nonzero().flatten().tolist()


def test_atsts_token_is_four_frames_of_all_bands_and_its_attention_has_no_bias() -> None:
    backbone = built("atst")
    assert moved_tokens(backbone, 9, 3) == moved_tokens(backbone, 11, 60) == [2]
    assert all(name.endswith(("proj.bias", "fc1.bias", "fc2.bias")) or "norm" in name
               for name in backbone.state_dict() if name.endswith(".bias"))  # fmt: skip
    kernel = backbone.get_parameter("patch_embed.proj.weight")
    x = features(backbone, 1)
    patch = x[0, 8:12].T.flatten()  # (mel, time), row by row, as the published linear layer takes it
    expected = kernel.flatten(1) @ patch + backbone.get_parameter("pos_embed")[0, 2]
    torch.testing.assert_close(backbone.embed(x)[0, 2], expected)


def test_fpassts_token_sees_two_steps_of_the_stem_and_the_last_sees_zeros() -> None:
    backbone = built("fpasst")
    x = features(backbone)
    stem = x.transpose(1, 2)[:, None]
    for place in range(3):
        stem = F.gelu(backbone.get_submodule(f"stem.{place}")(stem))
    assert stem.shape == (2, 64, 32, 6)
    proj = backbone.get_submodule("patch_embed.proj")
    assert isinstance(proj, nn.Conv2d) and proj.weight.shape == (96, 16, 128, 2)
    published = F.conv2d(stem.reshape(2, 16, 128, 6), proj.weight, proj.bias, padding=(0, 1))[..., 0, 1:]
    positions = backbone.get_parameter("time_pos") + backbone.get_parameter("freq_pos")
    torch.testing.assert_close(backbone.embed(x), published.transpose(1, 2) + positions, rtol=1e-4, atol=1e-5)
    # step s of the stem sees frames 4 s - 5 to 4 s + 5
    assert moved_tokens(backbone, 10, 40) == [1, 2, 3] and moved_tokens(backbone, 11, 90) == [1, 2, 3, 4]


@pytest.mark.parametrize(("frames", "count"), [(1, 1), (23, 6), (24, 6), (25, 7), (1000, 250)])
def test_fpasst_counts_the_last_half_steps(frames: int, count: int) -> None:
    assert built("fpasst", frames)(torch.zeros(1, frames, 128)).shape == (1, 2 + count, 96)


@pytest.mark.parametrize("family", ["fpasst", "m2d", "asit"])
def test_tokens_in_front_have_positions_of_their_own(family: str) -> None:
    backbone = built(family)
    x = features(backbone)
    table = backbone.get_parameter("prefix_pos" if family == "fpasst" else "pos_embed")
    embedded, out = backbone.embed(x), backbone(x)
    with torch.no_grad():
        table[:, 0] += 1
    assert torch.equal(backbone.embed(x), embedded) and not torch.allclose(backbone(x), out)


def test_asits_tokens_are_time_major_and_its_published_sequence_is_all_of_them() -> None:
    backbone = built("asit")
    assert moved_tokens(backbone, 2 * 16 + 3, 5 * 16 + 1) == [2 * 8 + 5]
    x = features(backbone)
    assert torch.equal(backbone.published_sequence(x), backbone(x))


@pytest.mark.parametrize("grid", [(8, 37), (37, 8)])
def test_asits_table_is_resized_as_the_published_code_does(grid: tuple[int, int]) -> None:
    table = torch.randn(1, 297, 96, generator=torch.Generator().manual_seed(0))
    backbone = built("asit", 998)
    new = backbone.shape(backbone.tokens)
    rules = Rules(positions="bicubic", antialias=False)
    fitted, _ = fit({"pos_embed": table}, backbone.sized, Shape(grid, (16, 16)), new, rules)
    square = table[:, 1:].reshape(1, *grid, 96).permute(0, 3, 1, 2).double()
    resized = F.interpolate(square, size=(62, 8), mode="bicubic", align_corners=False)
    expected = torch.cat([table[:, :1], resized.permute(0, 2, 3, 1).reshape(1, -1, 96).float()], dim=1)
    torch.testing.assert_close(fitted["pos_embed"], expected, rtol=0, atol=1e-6)


# --- M2D's chunks -----------------------------------------------------------------------------------------------------


def test_m2ds_tokens_are_mel_major_and_its_published_sequence_has_the_bands_side_by_side() -> None:
    backbone = built("m2d")
    assert moved_tokens(backbone, 2 * 16 + 3, 3 * 16 + 1) == [3 * 6 + 2]
    x = features(backbone)
    sequence, out = backbone.published_sequence(x), backbone(x)
    assert sequence.shape == (2, 6, 5 * 96)
    for t in range(6):
        torch.testing.assert_close(sequence[:, t], torch.cat([out[:, 1 + f * 6 + t] for f in range(5)], dim=1))


@settings(deadline=None, max_examples=8)
@given(whole=st.integers(0, 2), rest=st.sampled_from([0, 1, 16, 40, 992, 993, 1000]))
def test_chunks_are_as_clips_of_their_own(whole: int, rest: int) -> None:
    frames = whole * CHUNK + rest
    if not frames:
        return
    backbone = built("m2d", frames)
    x = features(backbone)
    parts = []
    for begin in range(0, frames, CHUNK):
        piece = x[:, begin : begin + CHUNK]
        alone = built("m2d", piece.shape[1])
        state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
        short = alone.shape(alone.tokens).grid[0]
        table = state["pos_embed"][:, 1:].unflatten(1, (5, -1))[:, :, :short].flatten(1, 2)
        alone.load_state_dict(state | {"pos_embed": torch.cat([state["pos_embed"][:, :1], table], dim=1)})
        parts.append(alone(piece))
    out = backbone(x)
    torch.testing.assert_close(out[:, 0], torch.stack([part[:, 0] for part in parts]).mean(0), rtol=1e-4, atol=1e-5)
    grids = [part[:, 1:].unflatten(1, (5, -1)) for part in parts]
    torch.testing.assert_close(out[:, 1:], torch.cat(grids, dim=2).flatten(1, 2), rtol=1e-4, atol=1e-5)
    assert backbone.published_sequence(x).shape == (2, sum(grid.shape[2] for grid in grids), 5 * 96)


def test_whole_chunks_are_not_padded_and_shorter_ones_with_zeros() -> None:
    whole = built("m2d", CHUNK)
    x = features(whole, 1)
    assert whole(x).shape[1] == 1 + 5 * 62
    changed = x.clone()
    changed[:, 992:] += 5  # the nine frames that fill no patch
    assert torch.equal(whole(changed), whole(x))
    shorter = built("m2d", 90)
    x = features(shorter, 1)
    torch.testing.assert_close(shorter(x), built("m2d", 96)(F.pad(x, (0, 0, 0, 6))))
    assert shorter(x).shape[1] == 1 + 5 * 6


def test_positions_are_those_of_one_chunk() -> None:
    assert built("m2d", 3 * CHUNK).get_parameter("pos_embed").shape == (1, 1 + 5 * 62, 96)
    backbone = built("m2d", CHUNK)
    before = backbone.get_parameter("pos_embed")
    assert backbone.resize(tokens_for("m2d", 2 * CHUNK + 50), Rules()) == []
    assert backbone.get_parameter("pos_embed") is before
    assert backbone(features(backbone, 1)).shape == (1, 1 + 5 * (124 + 4), 96)


def test_all_whole_chunks_go_through_the_blocks_at_once() -> None:
    backbone = built("m2d", 3 * CHUNK + 40)
    rows: list[int] = []
    backbone.blocks[0].register_forward_hook(lambda _module, given, _out: rows.append(len(given[0])))
    backbone(features(backbone))
    assert rows == [2 * 3, 2]


def test_the_chunks_of_a_clip_skip_the_same_branches() -> None:
    backbone = built("m2d", 2 * CHUNK, drop=0.9).train()
    x = features(backbone, 3)
    x[:, CHUNK:] = x[:, :CHUNK]  # both chunks are alike, so what is skipped alike comes out alike
    sequence = backbone(x, Draw(7, 0, 3, torch.arange(3)))[:, 1:].unflatten(1, (5, 2, 62))
    torch.testing.assert_close(sequence[:, :, 0], sequence[:, :, 1])
    assert not torch.allclose(sequence, backbone(x)[:, 1:].unflatten(1, (5, 2, 62)))


def test_a_wider_patch_has_fewer_positions_in_a_chunk() -> None:
    size = replace(BACKBONES["m2d_micro"], patch=(64, 16))
    tokens = tokens_of(2 * CHUNK, 80, (64, 16), (64, 16), "chunks")
    backbone = M2d(size, tokens)
    assert backbone.pos_embed.shape[1] == 1 + 5 * 15 and tokens.time == 30
    assert backbone(torch.zeros(1, 2 * CHUNK, 80)).shape == (1, 1 + 5 * 30, 96)
