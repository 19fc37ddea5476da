"""Augmentation for sound events: features, frame labels and teachers' targets change together, from counted draws."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from c2ftool.augment.bands import filter_augment, frequency_warp, scale_bands, stretch_bands
from c2ftool.augment.frames import mask_stretch, roll_by, time_mask, time_roll
from c2ftool.augment.matching import diagonal, mirror, neighbour
from c2ftool.augment.mixup import mix_statistics, mix_style, mix_with, spectrogram_mixup
from c2ftool.augment.targets import Targets
from c2ftool.augment.waveform import mix_waveforms
from c2ftool.draws import Draw
from c2ftool.spec.augment import (
    FilterAugment,
    FrequencyWarp,
    MixStyle,
    SpectrogramMixup,
    TimeMask,
    TimeRoll,
    WaveformMixup,
)

CPU = torch.device("cpu")
CLIPS, CLASSES, FRAMES, MELS = 8, 5, 25, 16  # label frames, and 4 frames of features in each
PUBLISHED = WaveformMixup(alpha=2.0, probability=0.8, dominant=True, partner="set")


def draw(rows: int = CLIPS, step: int = 0) -> Draw:
    return Draw(1, 0, step, torch.arange(rows))


def features(clips: int = CLIPS, frames: int = 4 * FRAMES, mels: int = MELS, seed: int = 3) -> Tensor:
    return torch.randn(clips, frames, mels, generator=torch.Generator().manual_seed(seed))


def targets(clips: int = CLIPS, seed: int = 4) -> Targets:
    """Labels of clips and frames, a teacher's probabilities, and which clips' frames are known."""
    generator = torch.Generator().manual_seed(seed)
    frame = (torch.rand(clips, CLASSES, FRAMES, generator=generator) > 0.7).float()
    teacher = torch.rand(clips, CLASSES, FRAMES, generator=generator)
    return {"clip": frame.amax(2), "frame": frame, "teacher": teacher, "strong": torch.ones(clips, dtype=torch.bool)}


def same(ours: Targets | None, theirs: Targets | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- partners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clips", [4, 8, 12, 64])
def test_a_clip_has_three_partners_within_its_four(clips: int) -> None:
    rows = torch.arange(clips)
    pairs = [match(clips, CPU) for match in (mirror, neighbour, diagonal)]
    for partner in pairs:
        assert torch.equal(partner[partner], rows)  # a partner's partner is the clip itself
    for row, *partners in zip(rows.tolist(), *(p.tolist() for p in pairs), strict=True):
        low = min(row, clips - 1 - row) // 2 * 2
        assert {row, *partners} == {low, low + 1, clips - 1 - low, clips - 2 - low}


@pytest.mark.parametrize("match", [neighbour, diagonal])
@pytest.mark.parametrize("clips", [2, 5, 6])
def test_clips_that_make_no_fours_are_refused(match: Any, clips: int) -> None:
    with pytest.raises(ValueError, match=f"{clips} on a device are no multiple of 4"):
        match(clips, CPU)


# --- waveform mixup ---------------------------------------------------------------------------------------------------


def waves(clips: int = CLIPS, samples: int = 300, seed: int = 5) -> Tensor:
    drawn = torch.randint(-9000, 20_000, (clips, samples), generator=torch.Generator().manual_seed(seed))
    return drawn.to(torch.int16)


LENGTHS = torch.tensor([300, 300, 120, 300, 1, 0, 299, 200])
OTHERS = torch.tensor([300, 90, 300, 300, 200, 300, 0, 200])


def centred(waveforms: Tensor, lengths: Tensor) -> Tensor:
    out = torch.zeros(waveforms.shape, dtype=torch.float64)
    for clip, length in enumerate(lengths.tolist()):
        if length:
            out[clip, :length] = waveforms[clip, :length].double() / 32768
            out[clip, :length] -= out[clip, :length].mean()
    return out


def test_a_clip_outweighs_its_partner_of_the_set_and_brings_all_its_targets() -> None:
    partners = (waves(seed=6), OTHERS, targets(seed=7))
    mixed, lengths, after = mix_waveforms(waves(), LENGTHS, targets(), PUBLISHED, draw(), partners)
    drawn = draw().beta("augment.waveform_mixup.lambda", 2.0, 2.0)
    chosen = draw().uniform("augment.waveform_mixup") < 0.8
    assert chosen.any() and not chosen.all()
    share = torch.where(chosen, torch.maximum(drawn, 1 - drawn), 1.0)
    assert share.min() >= 0.5
    plain = share[:, None] * centred(waves(), LENGTHS) + (1 - share[:, None]) * centred(partners[0], OTHERS)
    torch.testing.assert_close(mixed, plain.float(), rtol=0, atol=2e-6)
    for name in ("clip", "frame", "teacher"):
        own, other = targets()[name], partners[2][name]
        part = share.view(-1, *[1] * (own.ndim - 1))
        torch.testing.assert_close(after[name], part * own + (1 - part) * other)
    # frames are labelled, so nothing that is labelled may be cut off
    assert torch.equal(lengths, torch.where(chosen, torch.maximum(LENGTHS, OTHERS), LENGTHS))
    assert mixed.double().sum(1).abs().max() < 1e-4  # no mean is left


def test_a_mix_of_labelled_frames_lasts_as_long_as_the_longer_clip_and_of_clips_as_the_own() -> None:
    spec = WaveformMixup(alpha=2.0, probability=1.0)
    _, lengths, _ = mix_waveforms(waves(), LENGTHS, targets(), spec, draw())
    assert torch.equal(lengths, torch.maximum(LENGTHS, LENGTHS.flip(0)))
    mixed, lengths, _ = mix_waveforms(waves(), LENGTHS, {"clip": targets()["clip"]}, spec, draw())
    assert torch.equal(lengths, LENGTHS) and not mixed[2, 120:].any()


def test_partners_of_the_set_must_be_given_and_make_no_pairs() -> None:
    with pytest.raises(ValueError, match="needs the partners"):
        mix_waveforms(waves(), LENGTHS, targets(), PUBLISHED, draw())
    partners = (waves(3), OTHERS[:3], targets(3))
    mix_waveforms(waves(3), LENGTHS[:3], targets(3), PUBLISHED, draw(3), partners)  # an odd batch


def test_of_a_mix_is_known_what_is_known_of_both_clips() -> None:
    own, other = targets(), targets(seed=7)
    own["strong"] = torch.tensor([True, True, False, False] * 2)
    other["strong"] = torch.tensor([True, False] * 4)
    share = torch.tensor([0.5] * 4 + [1.0] * 4)
    doubled = {name: torch.cat([own[name], other[name]]) for name in own}
    mixed = mix_with(features(2 * CLIPS), doubled, torch.arange(2 * CLIPS).roll(CLIPS), share.repeat(2))[1]
    assert mixed["strong"][:CLIPS].tolist() == [True, False, False, False, True, True, False, False]
    with_set = WaveformMixup(alpha=2.0, probability=1.0, partner="set")
    after = mix_waveforms(waves(), LENGTHS, own, with_set, draw(), (waves(), OTHERS, other))[2]
    assert after["strong"].tolist() == [True, False, False, False] * 2


# --- time roll --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [998, 1000, 1001])
def test_labels_roll_by_a_quarter_of_the_features_to_the_nearest_then_even(frames: int) -> None:
    shift = torch.tensor([0, 1, 2, 3, 4, 6, 10, 126, -1, -2, -3, -6, -126, 2000])
    x = torch.zeros(len(shift), frames, 2)
    x[:, 500] = 1
    label = torch.zeros(len(shift), 1, 250)
    label[:, 0, 125] = 1
    moved, after = roll_by(x, {"frame": label, "teacher": label, "clip": torch.eye(len(shift))}, shift, 4.0)
    assert after is not None and torch.equal(after["clip"], torch.eye(len(shift)))
    by = [0, 0, 0, 1, 1, 2, 2, 32, 0, 0, -1, -2, -32, 500]  # of shift / 4
    assert moved[:, :, 0].argmax(1).tolist() == [(500 + s) % frames for s in shift.tolist()]
    assert after["frame"][:, 0].argmax(1).tolist() == [(125 + s) % 250 for s in by]
    assert torch.equal(after["frame"], after["teacher"])
    assert moved.sum() == 2 * len(shift)


@settings(max_examples=50, deadline=None)
@given(step=st.integers(0, 10_000), factor=st.sampled_from([1, 2, 4]))
def test_a_mark_in_both_stays_in_both(step: int, factor: int) -> None:
    """What lies in a label frame lies there after rolling, but for the half a label frame that shifts are rounded."""
    ratio = 4 // factor
    mark = torch.arange(CLIPS) * 7 % 250
    x, label = torch.zeros(CLIPS, 250 * ratio, 3), torch.zeros(CLIPS, CLASSES, 250)
    for clip, place in enumerate(mark.tolist()):
        x[clip, ratio * place : ratio * (place + 1)] = 1
        label[clip, 2, place] = 1
    moved, after = time_roll(x, {"frame": label}, TimeRoll(), ratio, draw(step=step))
    assert after is not None
    centre = torch.exp(2j * torch.pi * torch.arange(250 * ratio) / (250 * ratio))
    sound = (moved[:, :, 0] * centre).sum(1).angle() / (2 * torch.pi) * 250  # the middle on the circle of label frames
    painted = after["frame"][:, 2].argmax(1) + (ratio - 1) / (2 * ratio)
    apart = (sound - painted + 125) % 250 - 125
    assert apart.abs().max() <= 0.5 + 1e-3
    assert ratio > 1 or apart.abs().max() < 1e-3
    assert torch.equal(after["frame"].sum(2), label.sum(2))


def test_shifts_are_normal_and_cut_towards_none() -> None:
    x = torch.zeros(4000, 1000, 1)
    x[:, 500] = 1
    moved, none = time_roll(x, None, TimeRoll(std=0.125), 4.0, draw(4000))
    assert none is None
    shift = moved[:, :, 0].argmax(1) - 500
    expected = (draw(4000).noise("augment.time_roll") * 125).trunc().long()
    within = expected.abs() < 500
    assert within.float().mean() > 0.999 and torch.equal(shift[within], expected[within])
    assert shift.double().std() == pytest.approx(125, rel=0.04) and shift.double().mean() == pytest.approx(0, abs=6)


# --- spectrogram mixup and MixStyle -----------------------------------------------------------------------------------


def test_log_mels_mix_with_their_neighbours_by_the_larger_share() -> None:
    x, before = features(), targets()
    mixed, after = spectrogram_mixup(x, before, SpectrogramMixup(alpha=0.2, probability=1.0), draw())
    drawn = draw().beta("augment.spectrogram_mixup.lambda", 0.2, 0.2)
    share = torch.maximum(drawn, 1 - drawn)
    assert len(set(share.tolist())) == CLIPS and share.min() >= 0.5
    for clip, part in enumerate(share.tolist()):
        other = clip ^ 1
        torch.testing.assert_close(mixed[clip], part * x[clip] + (1 - part) * x[other])
        for name in ("clip", "frame", "teacher"):
            torch.testing.assert_close(after[name][clip], part * before[name][clip] + (1 - part) * before[name][other])
    assert same(before, targets()) and torch.equal(x, features())  # inputs are left as they are


@settings(max_examples=30, deadline=None)
@given(step=st.integers(0, 10_000))
def test_mixing_weights_sum_to_1_and_labels_stay_within_0_and_1(step: int) -> None:
    ones = torch.full((CLIPS, CLASSES, FRAMES), 1 + 2**-22)  # as mixing in the waveform may leave them
    given_: Targets = {"frame": ones, "clip": torch.eye(CLIPS)}
    mixed, after = spectrogram_mixup(
        torch.ones(CLIPS, 4, 2), given_, SpectrogramMixup(probability=1.0), draw(step=step)
    )
    assert after["frame"].max() <= 1 and after["frame"].min() >= 1 - 1e-6
    torch.testing.assert_close(after["clip"].sum(1), torch.ones(CLIPS))
    torch.testing.assert_close(mixed, torch.ones(CLIPS, 4, 2))


def test_a_band_takes_mean_and_deviation_of_the_mix() -> None:
    x = features() * (1.5 + features(frames=1, seed=8).sin()) + features(frames=1, seed=9)
    out = mix_style(x, MixStyle(alpha=0.4, probability=1.0), draw())
    drawn = draw().beta("augment.mix_style.lambda", 0.4, 0.4)
    for clip, part in enumerate(torch.maximum(drawn, 1 - drawn).tolist()):
        other = CLIPS - 1 - (clip ^ 1)
        for of in (lambda y: y.mean(0), lambda y: y.std(0)):
            torch.testing.assert_close(
                of(out[clip]), part * of(x[clip]) + (1 - part) * of(x[other]), rtol=1e-4, atol=1e-4
            )
        # only shifted and scaled: what stands out in time still does
        ours, before = ((y[clip] - y[clip].mean(0)) / y[clip].std(0) for y in (out, x))
        torch.testing.assert_close(ours, before, rtol=1e-3, atol=1e-3)


def test_a_band_without_change_over_time_stays_finite() -> None:
    x = features()
    x[0] = 0.3
    out = mix_style(x, MixStyle(probability=1.0), draw())
    assert out.isfinite().all() and out[0].std(0).max() < 1e-3


# --- time mask --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [4.0, 2.0])
def test_a_stretch_is_0_in_features_labels_and_teachers(ratio: float) -> None:
    x, before = torch.ones(CLIPS, int(ratio) * FRAMES - 2, MELS), {name: each + 0.5 for name, each in targets().items()}
    masked, after = mask_stretch(x, before, 20, 25, ratio)
    assert after is not None
    first = int(20 * ratio)
    assert masked[:, :first].all() and not masked[:, first:].any()
    for name in ("frame", "teacher"):
        assert not after[name][:, :, 20:].any() and torch.equal(after[name][:, :, :20], before[name][:, :, :20])
    assert torch.equal(after["clip"], before["clip"])


def test_masks_are_from_a_twentieth_to_the_given_share_wide_and_lie_anywhere() -> None:
    widths, firsts = set(), set()
    x, ones = torch.ones(1, 400, 1), torch.ones(1, 1, 100)
    for step in range(600):
        masked, after = time_mask(x, {"frame": ones}, TimeMask(ratio=0.2), 4.0, draw(1, step))
        assert after is not None
        hidden = (after["frame"][0, 0] == 0).nonzero()[:, 0]
        assert int(hidden[-1] - hidden[0]) + 1 == len(hidden)  # one stretch
        assert torch.equal(masked[0, ::4, 0], after["frame"][0, 0])
        widths.add(len(hidden))
        firsts.add(int(hidden[0]))
    assert widths == set(range(5, 21))
    assert min(firsts) == 0 and max(firsts) > 90


def test_masks_without_labels_fall_on_whole_label_frames() -> None:
    masked, none = time_mask(torch.ones(2, 998, 1), None, TimeMask(ratio=0.1), 4.0, draw(2))
    hidden = (masked[0, :, 0] == 0).nonzero()[:, 0]
    assert none is None and hidden[0] % 4 == 0 and 12 * 4 <= len(hidden) <= 25 * 4


# --- FilterAugment and frequency warping ------------------------------------------------------------------------------


def test_gains_are_linear_in_decibels_from_border_to_border() -> None:
    gains = torch.tensor([[0.0, 6.0, -6.0], [20.0, 20.0, 0.0]])
    out = scale_bands(torch.ones(2, 3, 16), [0, 6, 16], gains)
    decibels = 20 * out.log10()
    first = torch.cat([torch.linspace(0, 6, 6), torch.linspace(6, -6, 10)])
    second = torch.cat([torch.full((6,), 20.0), torch.linspace(20, 0, 10)])
    torch.testing.assert_close(decibels, torch.stack([first, second])[:, None].expand(2, 3, 16), rtol=1e-4, atol=1e-4)


def drawn_bands(spec: FilterAugment, mels: int, step: int) -> tuple[list[int], Tensor]:
    """The borders of a step, and the gains of 3 clips at them."""
    drawn: list[tuple[list[int], Tensor]] = []

    def kept(features: Tensor, borders: list[int], gains: Tensor) -> Tensor:
        drawn.append((borders, gains))
        return features

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("c2ftool.augment.bands.scale_bands", kept)
        filter_augment(torch.ones(3, 2, mels), spec, draw(3, step))
    return drawn[0]


@settings(max_examples=60, deadline=None)
@given(
    step=st.integers(0, 10_000), mels=st.sampled_from([1, 3, 16, 64, 128]), least=st.integers(1, 4),
    more=st.integers(0, 3), width=st.integers(1, 8),
)  # fmt: skip
def test_bands_are_as_many_and_as_wide_as_asked(step: int, mels: int, least: int, more: int, width: int) -> None:
    spec = FilterAugment(probability=1.0, bands=[least, least + more], min_width=width, db=[-3.0, 9.0])
    borders, gains = drawn_bands(spec, mels, step)
    bands = len(borders) - 1
    assert borders[0] == 0 and borders[-1] == mels
    assert min(least, mels) <= bands <= least + more
    assert min(b - a for a, b in pairwise(borders)) >= min(width, mels // bands)  # narrower where there is no room
    assert gains.shape == (3, bands + 1) and gains.min() >= -3 and gains.max() < 9
    assert not torch.equal(gains[0], gains[1])  # each clip's own


def test_steps_draw_every_number_of_bands_and_borders_all_over() -> None:
    drawn = [drawn_bands(FilterAugment(probability=1.0), 128, step)[0] for step in range(500)]
    assert {len(borders) - 1 for borders in drawn} == {3, 4, 5}
    inner = {border for borders in drawn for border in borders[1:-1]}
    assert min(inner) == 6 and max(inner) == 122 and len(inner) > 110


def test_bands_that_stretch_keep_both_ends_and_time() -> None:
    x = features(2, 7, 32)
    out = stretch_bands(x, 5, 20)
    assert out.shape == x.shape
    torch.testing.assert_close(out[..., 0], x[..., 5])
    torch.testing.assert_close(out[..., -1], x[..., 24])
    torch.testing.assert_close(stretch_bands(x, 0, 32), x)
    ramp = torch.arange(32.0).expand(1, 3, 32)
    inner = stretch_bands(ramp, 4, 21)[0, 0]
    assert (inner - torch.linspace(4, 24, 32)).abs().max() < 0.1  # evenly, as far as cubic interpolation is


def test_the_share_and_place_of_stretched_bands_vary_within_their_limits() -> None:
    ramp = torch.arange(128.0).expand(1, 2, 128)
    firsts, lasts, counts = set(), set(), set()
    for step in range(800):
        out = frequency_warp(ramp, FrequencyWarp(probability=1.0, least=0.6), draw(1, step))[0, 0]
        first, last = round(float(out[0])), round(float(out[-1]))
        assert 0 <= first <= last <= 127
        firsts.add(first)
        lasts.add(last)
        counts.add(last - first + 1)
    assert counts == set(range(76, 128)) and min(firsts) == 0 and max(firsts) > 35 and max(lasts) == 127


# --- devices and limits -----------------------------------------------------------------------------------------------


def test_nothing_on_a_device_is_waited_for() -> None:
    """On `meta` tensors, which have no values, nothing can be looked at."""
    x = features().to("meta")
    own = {name: each.to("meta") for name, each in targets().items()}
    share, rows = torch.empty(CLIPS, device="meta"), torch.empty(CLIPS, dtype=torch.int64, device="meta")
    assert roll_by(x, own, rows, 4.0)[0].shape == x.shape
    assert mask_stretch(x, own, 2, 5, 4.0)[0].shape == x.shape
    assert mix_with(x, own, rows, share)[0].shape == x.shape
    assert mix_statistics(x, rows, share).shape == x.shape
    assert scale_bands(x, [0, 7, MELS], torch.empty(CLIPS, 3, device="meta")).shape == x.shape
    assert stretch_bands(x, 2, 9).shape == x.shape


@pytest.mark.parametrize("section", [{"bands": [5, 3]}, {"db": [6.0, -6.0]}])
def test_limits_that_are_turned_round_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="write the lower limit first"):
        FilterAugment.model_validate(section)
