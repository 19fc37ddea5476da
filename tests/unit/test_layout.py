"""From front end and compression to tokens: what a phase sees is what its front end and its tokeniser make."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from c2ftool.frontend.build import build_frontend
from c2ftool.models.ast import Ast
from c2ftool.models.eat import Eat
from c2ftool.spec.amounts import Duration
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import Compression, words
from c2ftool.spec.frontend import Frontend, Statistics
from c2ftool.spec.layout import compressed, full_frontend, strides, tokens_of
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import ResolvedFrontend, Tokens

FACTORS = [1, 2, 4, 8, 16]
AST = BACKBONES["ast_base"]
PATCH = (16, 16)


def compression(method: str, factor: int = 1, **more: Any) -> Compression:
    return TypeAdapter[Compression](Compression).validate_python({"method": method, "factor": factor, **more})


def full(frames: int = 1024, mels: int = 128, hop: int = 160) -> ResolvedFrontend:
    return ResolvedFrontend(
        sample_rate=16_000, mels=mels, window="hanning", frame_length=400, hop=hop, frames=frames,
        mean=-4.0, std=4.0,
    )  # fmt: skip


def laid_out(
    how: Compression, front: ResolvedFrontend | None = None, stride: tuple[int, int] = PATCH
) -> tuple[ResolvedFrontend, Tokens]:
    return compressed(front or full(), how, AST, stride)


# --- each method at each factor (Feng et al., ICASSP 2024, section 2) -------------------------------------------------


@pytest.mark.parametrize("factor", FACTORS)
def test_every_method_leaves_the_papers_tokens(factor: int) -> None:
    for method in ("fshift", "pool", "patch"):
        _, tokens = laid_out(compression(method, factor))
        assert tokens.grid == (64 // factor, 8) and tokens.count == 512 // factor


@pytest.mark.parametrize("factor", FACTORS)
def test_frame_shift_lengthens_the_hop_and_keeps_the_window(factor: int) -> None:
    front, tokens = laid_out(compression("fshift", factor))
    assert (front.hop, front.frames, front.frame_length) == (160 * factor, 1024 // factor, 400)
    assert (tokens.frames, tokens.mels, tokens.patch, tokens.stride) == (1024 // factor, 128, [16, 16], [16, 16])
    assert front.pool is None
    # a clip's samples are covered to less than a hop, whatever the factor
    assert 0 <= full().samples - front.samples < front.hop


@pytest.mark.parametrize("factor", FACTORS)
def test_a_scaled_window_grows_with_the_hop(factor: int) -> None:
    front, tokens = laid_out(compression("fshift", factor, window="scaled"))
    assert (front.frame_length, front.hop) == (400 * factor, 160 * factor)
    assert tokens == laid_out(compression("fshift", factor))[1]


@pytest.mark.parametrize("factor", FACTORS[1:])
@pytest.mark.parametrize("at", ["input", "log_mel"])
@pytest.mark.parametrize("reduce", ["avg", "max"])
def test_pooling_keeps_the_front_end_and_shortens_what_comes_out(factor: int, at: str, reduce: str) -> None:
    front, tokens = laid_out(compression("pool", factor, at=at, reduce=reduce))
    assert front.pool is not None
    assert (front.pool.time, front.pool.mel, front.pool.at, front.pool.reduce) == (factor, 1, at, reduce)
    assert front.model_copy(update={"pool": None}) == full()
    assert (tokens.frames, tokens.patch) == (1024 // factor, [16, 16])


@pytest.mark.parametrize("factor", FACTORS)
def test_patch_compression_widens_patch_and_stride_alone(factor: int) -> None:
    front, tokens = laid_out(compression("patch", factor))
    assert front == full()
    assert (tokens.frames, tokens.patch, tokens.stride) == (1024, [16 * factor, 16], [16 * factor, 16])


@pytest.mark.parametrize("method", ["fshift", "pool", "patch"])
def test_a_factor_of_one_is_no_compression(method: str) -> None:
    assert laid_out(compression(method, 1)) == laid_out(compression("none"))


@pytest.mark.parametrize("method", ["fshift", "pool", "patch"])
@pytest.mark.parametrize("factor", [1, 4])
def test_a_mel_factor_leaves_fewer_tokens_over_mel(method: str, factor: int) -> None:
    front, tokens = laid_out(compression(method, factor, mel_factor=2))
    assert tokens.grid == (64 // factor, 4)
    assert front.mels == (64 if method == "fshift" else 128)
    assert tokens.patch[1] == (32 if method == "patch" else 16)
    assert front.frames == (1024 // factor if method == "fshift" else 1024)


def test_what_a_factor_does_not_divide_is_cut() -> None:
    # frames of 10 s at 16 kHz; 998 is no multiple of 4 or 16
    for factor, frames in ((1, 998), (2, 499), (4, 249), (8, 124), (16, 62)):
        for method in ("fshift", "pool"):
            assert laid_out(compression(method, factor), full(998))[1].frames == frames
        # the patch is cut out of all frames: 998 = 15 x 64 + 38
        assert laid_out(compression("patch", factor), full(998))[1].time == 998 // (16 * factor)


def test_overlapping_patches_make_asts_grid_and_stride_follows_the_patch() -> None:
    stride = (10, 10)
    assert laid_out(compression("none"), stride=stride)[1].grid == (101, 12)  # AST, 1212 tokens
    assert laid_out(compression("none"), full(512), stride)[1].grid == (50, 12)
    for method in ("fshift", "pool", "patch"):
        assert laid_out(compression(method, 4), stride=stride)[1].grid == (25, 12)
    tokens = laid_out(compression("patch", 4, mel_factor=2), stride=stride)[1]
    assert (tokens.patch, tokens.stride, tokens.grid) == ([64, 32], [40, 20], (25, 5))


def test_strides_are_the_patch_unless_the_spec_says_otherwise() -> None:
    assert strides(Model(backbone="ast_base"), AST) == (16, 16)
    assert strides(Model(backbone="ast_base", stride=[10, 12]), AST) == (10, 12)  # [frames, mel bands]
    assert tokens_of(1024, 128, (16, 8)).grid == (64, 16)
    assert tokens_of(1024, 128, (16, 16), (10, 12)).grid == (101, 10)


def test_a_front_end_is_the_backbones_with_what_the_spec_changes() -> None:
    default = full_frontend(Frontend(), AST, -5.0, 3.0)
    assert default == full().model_copy(update={"mean": -5.0, "std": 3.0})
    hop = full_frontend(Frontend(hop=Duration.parse("12.5 ms"), mels=64, frames=200), AST, -5.0, 3.0)
    assert (hop.hop, hop.mels, hop.frames, hop.frame_length) == (200, 64, 200, 400)
    given_ = full_frontend(Frontend(normalize=Statistics(mean=1.0, std=2.0)), AST, -5.0, 3.0)
    assert (given_.mean, given_.std) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("how", "frames", "message"),
    [
        (("fshift", 16), 12, "12 frames compressed 16 to 1 leave none"),
        (("pool", 16), 12, "12 frames compressed 16 to 1 leave none"),
        (("fshift", 8), 96, "12 frames x 128 mel bands leave no 16 x 16 patch"),
        (("pool", 8), 96, "12 frames x 128 mel bands leave no 16 x 16 patch"),
        (("patch", 8), 96, "96 frames x 128 mel bands leave no 128 x 16 patch"),
    ],
)
def test_a_factor_that_leaves_no_token_is_refused(how: tuple[str, int], frames: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        laid_out(compression(*how), full(frames))
    with pytest.raises(ValueError, match="leave no"):
        laid_out(compression("patch", 1, mel_factor=8), full(mels=64))


def test_compression_in_words() -> None:
    assert words(compression("none")) == "none"
    assert words(compression("fshift", 4)) == "fshift 4"
    assert words(compression("fshift", 2, window="scaled", mel_factor=2)) == "fshift 2 (window scaled), mel 2"
    assert words(compression("pool", 2, reduce="max", at="log_mel")) == "max pool 2 (log-mel)"
    assert words(compression("patch", 4)) == "patch 4 (pi)"


# --- the grid is what the modules make --------------------------------------------------------------------------------

METHODS = st.sampled_from(
    [
        ("none", {}),
        ("fshift", {}),
        ("fshift", {"window": "scaled"}),
        *(("pool", {"at": at, "reduce": reduce}) for at in ("input", "log_mel") for reduce in ("avg", "max")),
        ("patch", {}),
    ]
)


@settings(deadline=None, max_examples=120)
@given(
    METHODS,
    st.sampled_from(FACTORS),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(8, 260),
    st.integers(8, 96),
    st.tuples(st.integers(2, 16), st.integers(2, 16)),
    st.tuples(st.integers(1, 16), st.integers(1, 16)),
    st.sampled_from(["eat_tiny", "ast_micro"]),
)
def test_tokens_are_those_that_front_end_and_backbone_make(
    how: tuple[str, dict[str, str]], factor: int, mel: int, frames: int, mels: int, patch: tuple[int, int],
    stride: tuple[int, int], name: str,
) -> None:  # fmt: skip
    method, more = how
    chosen = compression(method) if method == "none" else compression(method, factor, mel_factor=mel, **more)
    time, bands = chosen.factor, chosen.mel_factor
    widened = (patch[0] * time, patch[1] * bands) if method == "patch" else patch
    left = (frames, mels) if method == "patch" else (frames // time, mels // bands)
    size = dataclasses.replace(BACKBONES[name], width=12, depth=1, patch=patch)
    front = full(frames, mels, hop=32)  # short clips: the arithmetic is the same
    if left[0] < widened[0] or left[1] < widened[1]:
        with pytest.raises(ValueError, match="leave n"):
            compressed(front, chosen, size, stride)
        return
    front, tokens = compressed(front, chosen, size, stride)

    logmel = build_frontend(front)
    waveforms = torch.zeros(2, front.samples, dtype=torch.int16)
    features = logmel.compress(logmel(waveforms, torch.tensor([front.samples, front.samples // 2])))
    assert tuple(features.shape) == (2, tokens.frames, tokens.mels)

    with torch.device("meta"):
        backbone = (Eat if size.family == "eat" else Ast)(size, tokens)
    assert backbone.grid(tokens.frames) == tokens.grid
    assert backbone.embed(features.to("meta")).shape == (2, tokens.count, 12)
    assert backbone(features.to("meta")).shape == (2, size.prefix + tokens.count, 12)
    assert backbone.sequence(features.to("meta")).shape == (2, tokens.time, 12)
