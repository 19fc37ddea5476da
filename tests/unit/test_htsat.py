"""HTS-AT: how the log-mel is folded, its body against timm's Swin, the order of tokens, other grids, its head."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.costs.flops import clip_flops
from c2ftool.draws import Draw
from c2ftool.models.build import build_classifier
from c2ftool.models.htsat import HtsAt
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Change, RelativeTable, Rules, Shape, fit, image_of
from c2ftool.models.swin import PatchMerging, relative_index, shift_mask, whole, windowed
from c2ftool.models.token_semantic import TokenSemanticHead
from c2ftool.spec import model as spec_model
from c2ftool.spec.backbones import BACKBONES, Swin
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import Tokens

PUBLISHED = json.loads((Path(__file__).parents[1] / "fixtures" / "parity" / "forward_macs.json").read_text())
MICRO = BACKBONES["htsat_micro"]
DEEP = replace(MICRO, depth=8, shape=Swin(depths=(2, 2, 2, 2)))  # with moved windows
TABLE = RelativeTable(stage=3, largest=8)
PATCH = (4, 4)


def tokens(frames: int, mels: int = 64, patch: tuple[int, int] = PATCH) -> Tokens:
    return tokens_of(frames, mels, patch, None, "image")


def htsat(frames: int = 256, deep: bool = True, drop: float = 0.0, patch: tuple[int, int] = PATCH) -> HtsAt:
    backbone = HtsAt(DEEP if deep else MICRO, tokens(frames, patch=patch), drop)
    initialise(backbone, 3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if name.endswith("bias_table"):
                value.normal_(0, 1, generator=generator)
    return backbone.eval()


def normal(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw(rows: int = 2, first: int = 0) -> Draw:
    return Draw(7, 0, 3, torch.arange(first, first + rows))


# --- the image --------------------------------------------------------------------------------------------------------


def test_the_images_of_the_papers() -> None:
    assert image_of(tokens(1001).grid) == (64, 64, 4)  # 10 s
    assert image_of(tokens(251).grid) == (32, 32, 2)  # four times the hop
    assert image_of(tokens(1001, patch=(16, 4)).grid) == (32, 32, 2)  # patches four times as wide
    assert image_of(tokens(501).grid) == (32, 64, 2)  # twice the hop: no square, and fewer chunks than 64 x 32 has


@given(st.integers(0, 12), st.integers(0, 6))
def test_no_other_number_of_chunks_is_nearer_to_a_square(time: int, frequency: int) -> None:
    height, width, chunks = image_of((1 << time, 1 << frequency))
    assert (height, width) == (chunks << frequency, (1 << time) // chunks)

    def off(count: int) -> int:
        return abs((frequency + count) - (time - count))

    nearest = min(range(time + 1), key=lambda count: (off(count), count))
    assert chunks == 1 << nearest


def test_chunks_of_time_are_stacked_on_the_mel_axis() -> None:
    backbone, x = htsat(256), normal(1, 256, 64)
    image = backbone.image(x) * (1 + backbone.bn0.eps) ** 0.5
    assert image.shape == (1, 128, 128)
    for frame, band in ((0, 0), (127, 5), (128, 5), (200, 63)):
        row, column = (frame // 128) * 64 + band, frame % 128
        torch.testing.assert_close(image[0, row, column], x[0, frame, band])


@pytest.mark.parametrize("frames", [251, 200, 129])
def test_fewer_frames_are_stretched_with_their_ends_kept(frames: int) -> None:
    backbone, x = htsat(256), normal(1, frames, 64)
    image = backbone.image(x) * (1 + backbone.bn0.eps) ** 0.5
    stretched = torch.cat([image[0, :64], image[0, 64:]], 1)  # (mels, 256)
    expected = F.interpolate(x[:, None], (256, 64), mode="bicubic", align_corners=True)[0, 0].T
    torch.testing.assert_close(stretched, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(stretched[:, [0, -1]], x[0, [0, -1]].T)


def test_the_batch_norm_has_one_mean_for_each_mel_band() -> None:
    backbone, x = htsat(256).train(), normal(4, 256, 64) * 7 - 20 + torch.arange(64)
    image = backbone.image(x).view(4, 2, 64, 128)
    torch.testing.assert_close(image.mean((0, 1, 3)), torch.zeros(64), rtol=0, atol=1e-5)
    torch.testing.assert_close(backbone.bn0.running_mean, 0.1 * x.mean((0, 1)))
    assert backbone.bn0.num_batches_tracked == 1


def test_tokens_come_back_in_the_order_of_time_and_mel() -> None:
    backbone = htsat(256)
    height = width = 4  # of the last stage: two chunks of 2 rows
    places = (100 * torch.arange(height)[:, None] + torch.arange(width)).flatten().float()
    handle = backbone.norm.register_forward_hook(lambda _m, _g, out: places[None, :, None].expand_as(out))
    out = backbone(normal(1, 256, 64))[0, :, 0]
    handle.remove()
    assert backbone.grid(256) == (8, 2) and out.shape == (16,)
    for t in range(8):
        for f in range(2):
            assert out[t * 2 + f] == 100 * ((t // 4) * 2 + f) + t % 4


def test_an_input_of_another_image_is_refused() -> None:
    backbone = htsat(256)
    for frames, mels in ((257, 64), (128, 64), (256, 32)):
        with pytest.raises(ValueError, match=f"{frames} frames x {mels} mel bands are no image of 256 x 64"):
            backbone.image(normal(1, frames, mels))


def test_tokens_that_cannot_be_folded_are_refused() -> None:
    with pytest.raises(ValueError, match="12 x 4 do not divide 1024 frames x 64 mel bands"):
        HtsAt(MICRO, tokens(1001, patch=(12, 4)))
    with pytest.raises(ValueError, match="do not divide 256 frames x 66 mel bands"):
        HtsAt(MICRO, tokens(251, 66))
    with pytest.raises(ValueError, match="cannot overlap"):
        HtsAt(MICRO, tokens(256).model_copy(update={"stride": [2, 4]}))
    backbone = htsat(256)
    with pytest.raises(ValueError, match="cannot be cut into 2 chunks"):
        backbone.resize(tokens(1001, patch=(12, 4)), Rules())
    assert backbone.tokens == tokens(256)


# --- the body ---------------------------------------------------------------------------------------------------------


def timm_twin(backbone: HtsAt) -> torch.nn.Module:
    """timm's Swin Transformer with the weights of ours, which takes an image and ends with the last norm."""
    height, width, _ = image_of(backbone.tokens.grid)
    twin = timm.models.swin_transformer.SwinTransformer(
        img_size=(4 * height, 4 * width), patch_size=4, in_chans=1, num_classes=0, embed_dim=24, depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8), window_size=8, drop_path_rate=0.0,
    )  # fmt: skip
    state = {}
    for name, value in backbone.state_dict().items():
        kind, _, rest = name.partition(".")
        if kind == "blocks":
            place, _, rest = rest.partition(".")
            stage = backbone.stages[int(place)]
            rest = rest.replace("bias_table", "relative_position_bias_table")
            state[f"layers.{stage}.blocks.{int(place) - backbone.stages.index(stage)}.{rest}"] = value
        elif kind == "merges":
            place, _, rest = rest.partition(".")
            state[f"layers.{int(place) + 1}.downsample.{rest}"] = value
        elif kind != "bn0":
            state[name] = value
    own = twin.state_dict()
    fitting = {name: value for name, value in state.items() if own[name].shape == value.shape}
    assert height != width or fitting.keys() == state.keys()
    missing, _ = twin.load_state_dict(fitting, strict=False)
    assert not [name for name in missing if name not in state and "index" not in name and "mask" not in name]
    return twin.eval()


@pytest.mark.parametrize("frames", [1024, 512, 256, 64])
@torch.no_grad()
def test_the_body_is_that_of_timms_swin_whatever_the_image(frames: int) -> None:
    backbone, x = htsat(frames), normal(2, frames, 64)
    twin = timm_twin(backbone)
    merged, ends, expected = [], [], []
    handles = [
        module.register_forward_hook(lambda _m, _g, out, into=into: into.append(out.flatten(1, -2)))
        for module, into in ((backbone.merges[1], merged), (backbone.norm, ends), (twin.layers[2].downsample, expected))
    ]
    backbone(x)
    end = twin.forward_features(backbone.image(x)[:, None]).flatten(1, 2)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(merged[0], expected[0], rtol=1e-4, atol=1e-5)
    if frames != 512:  # of its last 4 x 8 tokens timm makes one window, and moves those of 8 x 16 along the longer side
        torch.testing.assert_close(ends[0], end, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_moved_window_attends_as_token_by_token() -> None:
    backbone = htsat(1024)
    block, side, shift = backbone.blocks[1], 8, 4
    assert (block.side, block.shift, block.image) == (side, shift, (64, 64))
    block.image = (16, 24)
    block.mask = shift_mask((16, 24), side, shift)
    x, attention = normal(1, 16 * 24, 24), block.attn
    q, k, v = F.linear(block.norm1(x), attention.qkv.weight, attention.qkv.bias)[0].split(24, 1)
    scores = torch.full((384, 384), -torch.inf)
    for i in range(384):
        for j in range(384):
            (a, b), (c, d) = divmod(i, 24), divmod(j, 24)
            # windows begin at 4, 12, .. and what is before the first one, or after the last, is by itself
            if ((a + 4) // 8, (b + 4) // 8) == ((c + 4) // 8, (d + 4) // 8):
                row = (a - c + 7) * 15 + b - d + 7
                scores[i, j] = q[i] @ k[j] / 24**0.5 + attention.bias_table[row, 0]
    attended = x[0] + F.linear(scores.softmax(1) @ v, attention.proj.weight, attention.proj.bias)
    expected = attended + block.mlp(block.norm2(attended))
    torch.testing.assert_close(block(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_windows_that_reach_from_edge_to_edge_are_not_moved() -> None:
    sides = {
        frames: [(block.side, block.shift) for block in htsat(frames).blocks[1::2]] for frames in (1024, 512, 256, 64)
    }
    assert sides[1024] == [(8, 4), (8, 4), (8, 4), (8, 0)]
    assert sides[512] == [(8, 4), (8, 4), (8, 0), (4, 0)]
    assert sides[256] == [(8, 4), (8, 4), (8, 0), (4, 0)]
    assert sides[64] == [(8, 4), (8, 0), (4, 0), (2, 0)]
    assert all(block.shift == 0 and block.mask is None for block in htsat(1024).blocks[::2])


@given(st.integers(1, 8))
def test_every_distance_in_a_window_has_a_row(side: int) -> None:
    index = relative_index(side)
    assert set(index.flatten().tolist()) == set(range((2 * side - 1) ** 2))
    for i, j in ((0, side * side - 1), (side - 1, 0), (side * side - 1, side // 2)):
        down, across = i // side - j // side, i % side - j % side
        assert index[i, j] == (down + side - 1) * (2 * side - 1) + across + side - 1


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_windows_put_together_are_the_image(rows: int, columns: int, side: int) -> None:
    x = normal(2, rows * side, columns * side, 3)
    windows = windowed(x, side)
    assert windows.shape == (2, rows * columns, side * side, 3)
    assert torch.equal(windows[:, columns - 1, 0], x[:, 0, (columns - 1) * side])
    assert torch.equal(whole(windows, (rows * side, columns * side), side), x)


def test_merging_takes_the_four_tokens_in_the_published_order() -> None:
    merge, x = PatchMerging(6), normal(2, 4, 6, 6)
    published = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
    expected = merge.reduction(merge.norm(published.flatten(1, 2)))
    torch.testing.assert_close(merge(x.flatten(1, 2), (4, 6)), expected)


def test_forward_costs_what_the_public_code_costs() -> None:
    rows = [row for row in PUBLISHED["cases"] if row["model"] == "htsat"]
    assert len(rows) == 2
    for row in rows:
        size, frames = BACKBONES["htsat_base"], row["front_end_frames"]
        assert (size.width, size.shape) == (row["embed_dim"], Swin(tuple(row["depths"]), row["window_size"]))
        model = Model(backbone=size.name, head=spec_model.TokenSemanticHead(kind="token_semantic"))
        flops = clip_flops(
            lambda: build_classifier(model, tokens(frames), row["classes"]),  # noqa: B023
            lambda classifier: classifier(torch.empty(1, frames, 64)),  # noqa: B023
        )
        assert flops.forward == 2 * row["forward_macs"]


def test_weights_hold_what_is_learnt_or_measured_and_nothing_that_follows_from_the_grid() -> None:
    state = htsat().state_dict()
    assert {"bn0.running_mean", "bn0.running_var", "bn0.num_batches_tracked"} <= state.keys()
    assert not [name for name in state if "mask" in name or "index" in name]


def test_branches_are_skipped_by_row_and_only_in_training() -> None:
    backbone, x = htsat(64, drop=0.9), normal(4, 64, 64)
    assert backbone.drop_path == pytest.approx([0.9 * block / 7 for block in range(8)])
    whole_batch = backbone(x)
    torch.testing.assert_close(backbone(x, draw(4)), whole_batch, rtol=0, atol=0)
    backbone.train().bn0.eval()
    dropped = backbone(x, draw(4))
    assert ((dropped - whole_batch).abs().amax((1, 2)) > 0.1).all()
    torch.testing.assert_close(backbone(x), whole_batch)  # no draw, nothing skipped
    # a row's fate is its own, whatever rows go with it
    torch.testing.assert_close(backbone(x[2:], draw(2, first=2)), dropped[2:], rtol=1e-4, atol=1e-5)


def test_all_parameters_learn() -> None:
    model = Model(backbone="htsat_micro", head=spec_model.TokenSemanticHead(kind="token_semantic"))
    classifier = build_classifier(model, tokens(256), 5)
    initialise(classifier, 1)
    classifier(normal(2, 251, 64), draw()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in classifier.parameters())


def test_merges_learn_with_the_block_before_them() -> None:
    layer = htsat().layer_of
    assert [layer(f"merges.{stage}.norm.weight") for stage in range(3)] == [1, 3, 5]
    assert [layer(name) for name in ("bn0.weight", "patch_embed.norm.bias", "norm.weight")] == [0, 0, 7]
    assert layer("blocks.6.attn.bias_table") == 6


def test_first_values_are_swins() -> None:
    backbone = HtsAt(MICRO, tokens(1024))
    initialise(backbone, 1)
    state = backbone.state_dict()
    for name in ("blocks.3.attn.qkv.weight", "merges.2.reduction.weight", "blocks.0.attn.bias_table"):
        assert 0.015 < state[name].std() < 0.025, name
    assert (state["bn0.weight"] == 1).all() and (state["merges.0.norm.bias"] == 0).all()
    assert 0.2 < state["patch_embed.proj.weight"].abs().max() <= 0.25


# --- another grid -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [PATCH, (16, 4)], ids=["fewer frames", "wider patches"])
def test_crossing_to_full_resolution_changes_tables_of_small_windows_alone(patch: tuple[int, int]) -> None:
    backbone = htsat(1001 if patch != PATCH else 251, patch=patch)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    changes = backbone.resize(tokens(1001), Rules(positions="bicubic"))
    about = {change.name: change.what for change in changes}
    expected = {f"blocks.{n}.attn.bias_table": "attention bias 7 x 7 -> 15 x 15 (bicubic)" for n in (6, 7)}
    if patch != PATCH:
        expected["patch_embed.proj.weight"] = "patch kernel 4 x 16 -> 4 x 4 (pi)"
    expected["windows"] = "windows of an image of 32 x 32 tokens -> 64 x 64, and their masks"
    assert about == expected
    fresh = htsat(1001)
    assert {n: v.shape for n, v in backbone.state_dict().items()} == {n: v.shape for n, v in fresh.state_dict().items()}
    ours, theirs = dict(backbone.named_buffers()), dict(fresh.named_buffers())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    kept = before.keys() - about.keys()
    assert all(torch.equal(backbone.state_dict()[name], before[name]) for name in kept)
    assert backbone.grid(1001) == (32, 2) and backbone(normal(1, 1001, 64)).isfinite().all()


def test_there_and_back_is_another_network_only_in_what_was_resized() -> None:
    backbone, x = htsat(251), normal(1, 251, 64)
    before = backbone(x)
    backbone.resize(tokens(1001), Rules(positions="bicubic"))
    backbone.resize(tokens(251), Rules(positions="bicubic"))
    assert torch.nn.functional.cosine_similarity(backbone(x).flatten(), before.flatten(), dim=0) > 0.98


def fitted(table: Tensor, old: tuple[int, int], new: tuple[int, int], **rules: object) -> tuple[Tensor, Change]:
    out, changes = fit({"t": table}, {"t": TABLE}, Shape(old, PATCH), Shape(new, PATCH), Rules(**rules))  # type: ignore[arg-type]
    return out["t"], changes[0]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([64, 128, 256, 16]), st.sampled_from([64, 128, 256, 16]), st.sampled_from(["bicubic", "cut"]))
def test_tables_are_resized_as_swins_are(old: int, new: int, how: str) -> None:
    (before, _), (after, _) = TABLE.sides((old, 16)), TABLE.sides((new, 16))
    table = normal(before * before, 3)
    if before == after:
        same, changes = fit({"t": table}, {"t": TABLE}, Shape((old, 16), PATCH), Shape((new, 16), PATCH), Rules())
        assert not changes and same["t"] is table
        return
    image = table.T.reshape(1, 3, before, before)
    for rule, mode in ((how, "bicubic"), ("bilinear", "bilinear")):
        expected = F.interpolate(image.double(), (after, after), mode=mode, align_corners=False)[0].flatten(1).T
        out, change = fitted(table, (old, 16), (new, 16), positions=rule)
        torch.testing.assert_close(out, expected.float(), rtol=0, atol=1e-5)
        assert out.is_contiguous() and change.what.endswith(f"({mode})")


def test_a_table_starts_afresh_where_asked_and_a_wrong_one_is_refused() -> None:
    state = {"t": normal(49, 3)}
    old, new = Shape((64, 16), PATCH), Shape((256, 16), PATCH)
    out, (change,) = fit(state, {"t": TABLE}, old, new, Rules(positions="none"))
    assert out == {} and (change.kind, change.what) == ("created", "attention bias 7 x 7 -> 15 x 15 (start afresh)")
    with pytest.raises(ValueError, match="t has 49 rows, not 15 x 15, of windows 8 wide"):
        fit(state, {"t": TABLE}, new, old, Rules())


def test_moments_of_a_table_move_by_the_law_of_gradients() -> None:
    table, gradient = normal(49, 3), normal(49, 3, seed=9)
    _, change = fitted(table, (64, 16), (256, 16))
    moved = change.moved(gradient, "first")
    assert moved.shape == (225, 3) and change.moved(gradient.square(), "second").min() >= 0
    # what the loss gains by a small step of the table is the same before and after
    step, _ = fitted(normal(49, 3, seed=11), (64, 16), (256, 16))
    torch.testing.assert_close((moved * step).sum(), (gradient * normal(49, 3, seed=11)).sum(), rtol=1e-4, atol=1e-4)


# --- the head ---------------------------------------------------------------------------------------------------------


def test_the_head_scores_each_time_from_its_neighbours_too() -> None:
    head, x = TokenSemanticHead(6, 4, frequency=2), normal(3, 8 * 2, 6)
    assert list(head.state_dict()) == ["conv.weight", "conv.bias"]
    weight, bias = head.conv.weight, head.conv.state_dict()["bias"]
    padded = F.pad(x.view(3, 8, 12), (0, 0, 1, 1)).view(3, 10, 2, 6)
    expected = bias[:, None].expand(3, 4, 8).clone()
    for t in range(8):
        for f in range(2):
            for k in range(3):
                expected[:, :, t] += padded[:, t + k, f] @ weight[:, :, f, k].T
    torch.testing.assert_close(head.frames(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head(x), expected.mean(2), rtol=1e-4, atol=1e-5)
