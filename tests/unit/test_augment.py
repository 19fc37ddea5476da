"""Augmentation: what each kind does to a clip, from counted draws, whatever batch the clip is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchaudio.functional
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.augment.build import Augmentations
from c2ftool.augment.mixup import mixup
from c2ftool.augment.spectrogram import noise, spec_augment
from c2ftool.augment.waveform import mix_waveforms, roll
from c2ftool.compression.pool import pool
from c2ftool.data.batch import HostBatch
from c2ftool.data.order import local_places
from c2ftool.draws import Draw
from c2ftool.objectives.base import Prepared
from c2ftool.objectives.build import build_objective
from c2ftool.spec.augment import Augment, Mixup, Noise, Roll, SpecAugment, WaveformMixup
from c2ftool.spec.load import load_file
from c2ftool.spec.resolve import DataFacts, resolve


def draw(rows: int = 6, step: int = 0) -> Draw:
    return Draw(1, 0, step, torch.arange(rows))


def waveforms(clips: int = 6, samples: int = 500) -> Tensor:
    return torch.randint(-20_000, 20_000, (clips, samples), generator=torch.Generator().manual_seed(2)).to(torch.int16)


def features(clips: int = 6, frames: int = 40, mels: int = 24) -> Tensor:
    return torch.randn(clips, frames, mels, generator=torch.Generator().manual_seed(3))


LENGTHS = torch.tensor([500, 321, 2, 1, 0, 499])


# --- roll -------------------------------------------------------------------------------------------------------------


def test_each_clip_is_rolled_within_its_own_length() -> None:
    given_ = waveforms()
    rolled = roll(given_, LENGTHS, Roll(gain=False), draw())
    share = draw().uniform("augment.roll.offset").double()
    for clip, out, length, part in zip(given_, rolled, LENGTHS.tolist(), share.tolist(), strict=True):
        assert torch.equal(out[:length], clip[:length].float().roll(int(part * length)) / 32768)
        assert not out[length:].any()


def test_the_offset_reaches_all_of_the_clip() -> None:
    impulse = torch.zeros(3000, 8)
    impulse[:, 0] = 1
    rolled = roll(impulse, torch.full((3000,), 8), Roll(gain=False), draw(3000))
    places = torch.bincount(rolled.argmax(1), minlength=8)
    assert places.min() > 300 and places.sum() == 3000


def test_the_gain_is_between_a_half_and_one_and_a_half_about_one() -> None:
    gains = roll(torch.ones(2000, 3), torch.full((2000,), 3), Roll(), draw(2000))
    assert torch.equal(gains[:, 0], gains[:, 2])  # one gain for a clip
    assert gains.min() > 0.5 and gains.max() < 1.5
    assert gains[:, 0].mean() == pytest.approx(1, abs=0.01)
    assert gains[:, 0].std() == pytest.approx(0.109, abs=0.006)  # of Beta(10, 10)


def test_int16_and_float_waveforms_are_rolled_alike() -> None:
    whole = waveforms()
    assert torch.equal(roll(whole, LENGTHS, Roll(), draw()), roll(whole.float() / 32768, LENGTHS, Roll(), draw()))


# --- noise ------------------------------------------------------------------------------------------------------------


def test_noise_is_positive_and_no_stronger_than_asked() -> None:
    given_ = features(200)
    added = noise(given_, Noise(strength=0.1, shift=0), 1, draw(200)) - given_
    assert added.min() >= -1e-6 and added.max() < 0.1 + 1e-6
    strengths = added.amax((1, 2))
    assert strengths.min() < 0.01 and strengths.max() > 0.09  # a strength for each clip, U(0, 1) x 0.1
    within = added / strengths[:, None, None]
    assert within.mean() == pytest.approx(0.5, abs=0.01)  # uniform inside a clip


@pytest.mark.parametrize(("shift", "factor", "reach"), [(10, 1, 10), (10, 2, 5), (10, 4, 3), (3, 16, 1)])
def test_frames_shift_in_a_circle_by_minus_n_to_n_less_one(shift: int, factor: int, reach: int) -> None:
    given_ = torch.arange(40.0).repeat(400, 1)[..., None].expand(-1, -1, 3)
    shifted = noise(given_, Noise(strength=0.0, shift=shift), factor, draw(400))
    seen = set()
    for out in shifted:
        by = int((torch.arange(40) - out[:, 0].long())[20])
        assert torch.equal(out, given_[0].roll(by, 0))
        seen.add(by)
    assert seen == set(range(-reach, reach))


def test_no_noise_and_no_shift_change_nothing() -> None:
    assert torch.equal(noise(features(), Noise(strength=0, shift=0), 1, draw()), features())


# --- mixup ------------------------------------------------------------------------------------------------------------


def test_mixup_pairs_a_clip_with_its_mirror_by_one_share() -> None:
    x, y = features(), torch.eye(6)
    mixed, after = mixup(x, {"clip": y}, Mixup(alpha=0.8, probability=1.0), draw())
    targets = after["clip"]
    share = draw().beta_once("augment.mixup.lambda", 0.8, 0.8)
    assert 0 < share < 1
    for clip in range(6):
        assert torch.allclose(mixed[clip], share * x[clip] + (1 - share) * x[5 - clip], atol=1e-6)
        assert targets[clip, clip] == pytest.approx(share) and targets[clip, 5 - clip] == pytest.approx(1 - share)
    assert torch.allclose(targets.sum(1), torch.ones(6))


def test_mixup_leaves_the_stated_share_of_steps_alone() -> None:
    x, y = features(2), {"clip": torch.eye(2)}
    mixed = [not torch.equal(mixup(x, y, Mixup(probability=0.9), draw(2, step))[0], x) for step in range(1000)]
    assert sum(mixed) / 1000 == pytest.approx(0.9, abs=0.03)
    assert torch.equal(mixup(x, y, Mixup(probability=0.0), draw(2))[1]["clip"], torch.eye(2))


def test_an_odd_batch_cannot_be_mixed() -> None:
    with pytest.raises(ValueError, match="even batch, not 5 clips"):
        mixup(features(5), {"clip": torch.eye(5)}, Mixup(), draw(5))


# --- waveform mixup ---------------------------------------------------------------------------------------------------

ALWAYS = WaveformMixup(alpha=2.0, probability=1.0)  # shares that are far from a half too


def mixed_clips(
    given_: Tensor, lengths: Tensor, labels: Tensor, spec: WaveformMixup, draw: Draw
) -> tuple[Tensor, Tensor]:
    """The mixed waveforms and the labels of clips, whose lengths stay."""
    out, after, targets = mix_waveforms(given_, lengths, {"clip": labels}, spec, draw)
    assert torch.equal(after, lengths) and list(targets) == ["clip"]
    return out, targets["clip"]


def centred(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """(B, S) float32 clips without their mean, 0 beyond their length: clip by clip."""
    out = torch.zeros(waveforms.shape)
    for clip, length in enumerate(lengths.tolist()):
        if length:
            own = waveforms[clip, :length].double() / 32768
            out[clip, :length] = (own - own.mean()).float()
    return out


def test_a_chosen_clip_is_mixed_with_its_mirror_cut_to_its_own_length() -> None:
    given_, labels = waveforms(), torch.eye(6)
    mixed, targets = mixed_clips(given_, LENGTHS, labels, ALWAYS, draw())
    plain = centred(given_, LENGTHS)
    shares = draw().beta("augment.waveform_mixup.lambda", 2.0, 2.0)
    assert len(set(shares.tolist())) == 6  # one for each clip
    for clip, (share, length) in enumerate(zip(shares.tolist(), LENGTHS.tolist(), strict=True)):
        other = plain[5 - clip].clone()
        other[length:] = 0
        torch.testing.assert_close(mixed[clip], share * plain[clip] + (1 - share) * other, rtol=0, atol=2e-6)
        assert not mixed[clip, length:].any()
        assert targets[clip, clip] == pytest.approx(share) and targets[clip, 5 - clip] == pytest.approx(1 - share)
    # clip 3 has 1 sample and its partner, clip 2, has 2: a partner that ends before adds silence
    assert torch.allclose(targets.sum(1), torch.ones(6))


def test_a_partner_is_centred_over_its_whole_length_before_it_is_cut() -> None:
    given_ = torch.zeros(2, 400, dtype=torch.int16)
    given_[1, :200], given_[1, 200:] = 8000, -8000  # of mean 0, its first half is not
    mixed, _ = mixed_clips(given_, torch.tensor([200, 400]), torch.eye(2), ALWAYS, draw(2))
    share = draw(2).beta("augment.waveform_mixup.lambda", 2.0, 2.0)[0]
    torch.testing.assert_close(mixed[0, :200], ((1 - share) * 8000 / 32768).expand(200), rtol=1e-5, atol=1e-6)


def test_clips_that_are_not_chosen_lose_their_mean_and_nothing_else() -> None:
    given_, lengths = waveforms(400), torch.full((400,), 500)
    spec = WaveformMixup(probability=0.3)
    mixed, targets = mixed_clips(given_, lengths, torch.eye(400), spec, draw(400))
    alone = (targets == torch.eye(400)).all(1)
    assert alone.sum() / 400 == pytest.approx(0.7, abs=0.07)
    plain = centred(given_, lengths)
    torch.testing.assert_close(mixed[alone], plain[alone], rtol=0, atol=1e-7)
    assert bool((mixed[~alone] - plain[~alone]).abs().amax(1).min() > 0.01)
    never, labels = mixed_clips(given_, lengths, torch.eye(400), WaveformMixup(probability=0), draw(400))
    torch.testing.assert_close(never, plain, rtol=0, atol=1e-7)
    assert torch.equal(labels, torch.eye(400))


def test_shares_are_beta_about_a_half() -> None:
    lengths = torch.full((2000,), 4)
    _, targets = mixed_clips(torch.ones(2000, 4), lengths, torch.eye(2000), WaveformMixup(probability=1.0), draw(2000))
    shares = targets.diagonal()
    assert shares.mean() == pytest.approx(0.5, abs=0.01)
    assert shares.std() == pytest.approx(0.109, abs=0.006)  # of Beta(10, 10)


@pytest.mark.parametrize("world", [2, 3])
def test_any_device_mixes_its_clips_as_one_device_does(world: int) -> None:
    given_, lengths, labels = waveforms(12), torch.tensor([*LENGTHS.tolist(), *LENGTHS.tolist()]), torch.eye(12)
    spec = WaveformMixup(probability=0.5)
    whole, targets = mixed_clips(given_, lengths, labels, spec, draw(12))
    for rank in range(world):
        places = torch.from_numpy(local_places(12, rank, world, 2))
        part = Draw(1, 0, 0, places)
        some, theirs = mixed_clips(given_[places], lengths[places], labels[places], spec, part)
        assert torch.equal(some, whole[places]) and torch.equal(theirs, targets[places])


def test_int16_and_float_waveforms_are_mixed_alike() -> None:
    whole = waveforms()
    as_floats = mixed_clips(whole.float() / 32768, LENGTHS, torch.eye(6), ALWAYS, draw())[0]
    assert torch.equal(mixed_clips(whole, LENGTHS, torch.eye(6), ALWAYS, draw())[0], as_floats)


def test_waveforms_of_an_odd_batch_cannot_be_mixed() -> None:
    with pytest.raises(ValueError, match="even batch, not 5 clips"):
        mixed_clips(waveforms(5), LENGTHS[:5], torch.eye(5), WaveformMixup(), draw(5))


# --- SpecAugment ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(1, 130), mels=st.integers(1, 64), frequency=st.floats(0, 0.99), time=st.floats(0, 0.99),
    step=st.integers(0, 10_000),
)  # fmt: skip
def test_masks_are_torchaudios_for_the_same_draws(
    frames: int, mels: int, frequency: float, time: float, step: int
) -> None:
    x = features(5, frames, mels) + 10
    ours = spec_augment(x, SpecAugment(frequency=frequency, time=time), draw(5, step))
    drawn = draw(5, step).uniform("augment.spec.frequency", 2), draw(5, step).uniform("augment.spec.time", 2)

    def feed(values: Tensor) -> Callable[..., Tensor]:
        columns: Iterator[Tensor] = iter(values.T[:, :, None])
        return lambda *_, **__: next(columns)

    theirs = x[:, None].transpose(2, 3)  # (clips, channel, mels, frames)
    with pytest.MonkeyPatch.context() as patch:
        for axis, share, values in ((2, frequency, drawn[0]), (3, time, drawn[1])):
            patch.setattr(torch, "rand", feed(values))
            theirs = torchaudio.functional.mask_along_axis_iid(theirs, int(share * theirs.shape[axis]), 0.0, axis)
    assert torch.equal(ours, theirs[:, 0].transpose(1, 2))


def test_masks_differ_between_clips_and_stay_within_their_share() -> None:
    out = spec_augment(features(300) + 10, SpecAugment(frequency=0.25, time=0.3), draw(300))
    bands = (out == 0).all(1).sum(1)
    frames = (out == 0).all(2).sum(1)
    assert set(bands.tolist()) == set(range(6)) and set(frames.tolist()) == set(range(12))  # floor of U(0, 6), U(0, 12)


@pytest.mark.parametrize("fill", ["normalized", "log_mel"])
def test_masks_are_filled_with_the_mean_or_with_what_padding_is(fill: Any) -> None:
    x = features(50) + 10
    spec = SpecAugment(frequency=0.3, time=0.3, fill=fill)
    out = spec_augment(x, spec, draw(50), pad_value=0.47)
    zero = spec_augment(x, SpecAugment(frequency=0.3, time=0.3), draw(50))
    value = torch.tensor(0.47 if fill == "log_mel" else 0.0)
    masked = zero == 0
    assert masked.any() and torch.equal(out, torch.where(masked, value, x))


# --- all together -----------------------------------------------------------------------------------------------------

EVERYTHING = Augment(roll=Roll(), noise=Noise(), mixup=None, spec_augment=SpecAugment())


def test_a_clip_is_changed_the_same_in_any_part_of_the_batch() -> None:
    augment = Augmentations(EVERYTHING)
    whole = augment.waveforms(waveforms(), LENGTHS, None, draw())[0], augment.features(features(), None, draw())[0]
    for part in (slice(0, 1), slice(2, 6)):
        some = draw().select(part)
        assert torch.equal(augment.waveforms(waveforms()[part], LENGTHS[part], None, some)[0], whole[0][part])
        assert torch.equal(augment.features(features()[part], None, some)[0], whole[1][part])


def test_each_step_draws_anew() -> None:
    augment = Augmentations(EVERYTHING)
    first, second = (augment.features(features(), None, draw(step=step))[0] for step in (0, 1))
    assert not torch.equal(first, second)


def test_the_order_is_noise_mixup_masks() -> None:
    spec = EVERYTHING.model_copy(update={"mixup": Mixup(probability=1.0)})
    labels = {"clip": torch.eye(6)}
    out, targets = Augmentations(spec, factor=2).features(features(), labels, draw())
    expected, mixed = mixup(noise(features(), Noise(), 2, draw()), labels, Mixup(probability=1.0), draw())
    assert torch.equal(out, spec_augment(expected, SpecAugment(), draw()))
    assert targets is not None and torch.equal(targets["clip"], mixed["clip"])


def test_what_is_not_named_is_off() -> None:
    augment = Augmentations(Augment())
    same, labels = augment.features(features(), {"clip": torch.eye(6)}, draw())
    assert torch.equal(same, features()) and labels is not None and torch.equal(labels["clip"], torch.eye(6))
    assert augment.waveforms(waveforms(), LENGTHS, None, draw())[0].dtype == torch.int16
    assert torch.equal(augment.waveforms(waveforms(), LENGTHS, None, draw())[0], waveforms())


def test_clips_without_labels_are_not_mixed() -> None:
    same, labels = Augmentations(Augment(mixup=Mixup(probability=1.0))).features(features(), None, draw())
    assert torch.equal(same, features()) and labels is None


def test_waveforms_are_rolled_then_mixed() -> None:
    spec = Augment(roll=Roll(), waveform_mixup=ALWAYS)
    out, lengths, targets = Augmentations(spec).waveforms(waveforms(), LENGTHS, {"clip": torch.eye(6)}, draw())
    rolled = roll(waveforms(), LENGTHS, Roll(), draw())
    expected, labels = mixed_clips(rolled, LENGTHS, torch.eye(6), ALWAYS, draw())
    assert torch.equal(out, expected) and targets is not None and torch.equal(targets["clip"], labels)
    unlabelled, same, none = Augmentations(spec).waveforms(waveforms(), LENGTHS, None, draw())
    assert torch.equal(unlabelled, rolled) and none is None
    assert torch.equal(lengths, LENGTHS) and torch.equal(same, LENGTHS)


# --- augmentation of a phase: it follows the compression where features are shorter already --------------------------

SPEC = Path(__file__).parents[1] / "specs" / "c2f.yaml"
FACTS = DataFacts(
    name="sounds", classes=["a", "b", "c"], sample_rate=16_000, multi_label=False, mean=-5.0, std=4.0,
    fingerprint="0", clips_train=36, clips_valid=12, clips_test=12,
)  # fmt: skip


def prepared(compression: str, augment: str, clips: int = 6) -> tuple[Prepared, Augmentations]:
    """What a phase with this compression makes of noise, and its augmentation."""
    phases = f"phases=[{{name: only, length: 1 steps, compression: {compression}}}]"
    resolved = resolve(load_file(SPEC, [phases, "augment.spec_augment=null", f"augment={augment}"]).spec, FACTS)
    objective = build_objective(resolved)
    objective.begin_phase(resolved.phases[0], 0)
    front = resolved.phases[0].frontend
    sound = torch.randint(-9000, 9000, (clips, front.samples), generator=torch.Generator().manual_seed(1))
    lengths = torch.full((clips,), front.samples)
    labels = torch.eye(3)[torch.arange(clips) % 3]
    batch = HostBatch(torch.arange(clips), sound.to(torch.int16), lengths, labels)
    return objective.prepare_batch(batch, draw(clips)), objective._augment


@pytest.mark.parametrize(
    ("compression", "factor"),
    [
        ("{method: none}", 1),
        ("{method: fshift, factor: 4}", 4),
        ("{method: fshift, factor: 4, mel_factor: 2}", 4),
        ("{method: pool, factor: 4, at: log_mel}", 4),
        ("{method: pool, factor: 4, at: input}", 1),  # pooled after it is augmented
        ("{method: patch, factor: 4}", 1),
    ],
)
def test_the_noise_shift_follows_compression_that_comes_before_it(compression: str, factor: int) -> None:
    shifting = "{noise: {strength: 0, shift: 8}}"
    assert prepared(compression, shifting)[1].factor == factor
    late = "at: input" in compression
    clean = prepared("{method: none}" if late else compression, "{}", 60)[0].features
    seen = set()
    for before, after in zip(clean, prepared(compression, shifting, 60)[0].features, strict=True):
        for by in range(-8, 8):
            rolled = before.roll(by, 0)
            if torch.equal(after, pool(rolled[None], "avg", 4, 1)[0] if late else rolled):
                seen.add(by)
    assert seen == set(range(-8 // factor, 8 // factor))


def test_masks_of_a_phase_are_filled_as_padding_is() -> None:
    features_, augment = prepared("{method: none}", "{spec_augment: {frequency: 0, time: 0.5, fill: log_mel}}")
    assert augment.pad_value == pytest.approx(5.0 / 8.0)  # (0 - mean) / (2 std)
    masked = (features_.features == torch.tensor(5.0 / 8.0)).all(2)
    assert masked.any() and not masked.all(1).any()
    pooled = prepared("{method: pool, factor: 2, reduce: avg}", "{spec_augment: {frequency: 0, time: 0.5}}")[0]
    assert pooled.features.shape == (6, 64, 128) and (pooled.features == 0).all(2).any()


def test_mixed_waveforms_bring_their_labels_into_the_loss() -> None:
    plain = prepared("{method: none}", "{}")[0].targets["clip"]
    mixed = prepared("{method: none}", "{waveform_mixup: {probability: 1}}")[0].targets["clip"]
    shares = draw().beta("augment.waveform_mixup.lambda", 10.0, 10.0)[:, None]
    torch.testing.assert_close(mixed, plain * shares + plain.flip(0) * (1 - shares))
