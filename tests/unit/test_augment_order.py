"""All augmentation of a step together: its order, how often each kind comes, and that no device changes it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from c2ftool.augment.build import Augmentations
from c2ftool.augment.targets import Targets
from c2ftool.data.order import local_places
from c2ftool.draws import Draw
from c2ftool.spec.augment import (
    Augment,
    FilterAugment,
    FrequencyWarp,
    MixStyle,
    Mixup,
    Noise,
    Roll,
    SpecAugment,
    SpectrogramMixup,
    TimeMask,
    TimeRoll,
    WaveformMixup,
)

CLIPS, CLASSES, FRAMES, MELS = 8, 5, 25, 16  # label frames, and 4 frames of features in each
LENGTHS = torch.tensor([300, 300, 120, 300, 1, 0, 299, 200])


def draw(rows: int = CLIPS, step: int = 0) -> Draw:
    return Draw(1, 0, step, torch.arange(rows))


def features(clips: int = CLIPS) -> Tensor:
    return torch.randn(clips, 4 * FRAMES, MELS, generator=torch.Generator().manual_seed(3))


def waves(clips: int = CLIPS) -> Tensor:
    return torch.randint(-9000, 20_000, (clips, 300), generator=torch.Generator().manual_seed(5)).to(torch.int16)


def targets(clips: int = CLIPS) -> Targets:
    """Labels of clips and frames, a teacher's probabilities, and which clips' frames are known."""
    generator = torch.Generator().manual_seed(4)
    frame = (torch.rand(clips, CLASSES, FRAMES, generator=generator) > 0.7).float()
    teacher = torch.rand(clips, CLASSES, FRAMES, generator=generator)
    return {"clip": frame.amax(2), "frame": frame, "teacher": teacher, "strong": torch.ones(clips, dtype=torch.bool)}


def same(ours: Targets | None, theirs: Targets | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def changed(spec: Augment, step: int = 0) -> tuple[Tensor, Targets | None]:
    return Augmentations(spec).features(features(), targets(), draw(step=step))


NEVER = [
    Augment(spectrogram_mixup=SpectrogramMixup(probability=0.0)),
    Augment(mix_style=MixStyle(probability=0.0)),
    Augment(filter_augment=FilterAugment(probability=0.0)),
    Augment(frequency_warp=FrequencyWarp(probability=0.0)),
    Augment(),
]


@pytest.mark.parametrize("spec", NEVER, ids=lambda spec: next(iter(spec.model_dump(exclude_none=True)), "off"))
def test_nothing_changes_where_nothing_is_asked(spec: Augment) -> None:
    x, after = changed(spec)
    assert torch.equal(x, features()) and same(after, targets())


@pytest.mark.parametrize("key", ["spectrogram_mixup", "mix_style", "filter_augment", "frequency_warp"])
def test_the_stated_share_of_steps_is_changed_whole(key: str) -> None:
    shape = {"alpha": 5.0} if key in ("spectrogram_mixup", "mix_style") else {}  # shares that are 1 change nothing
    spec = Augment.model_validate({key: {"probability": 0.3, **shape}})
    x = features(4)
    before = {"clip": torch.eye(4)}
    hit = 0
    for step in range(400):
        out, _ = Augmentations(spec).features(x, before, draw(4, step))
        rows = (out != x).flatten(1).any(1)
        assert rows.all() or not rows.any()
        hit += bool(rows.all())
    assert hit / 400 == pytest.approx(0.3, abs=0.07)


EVERYTHING = Augment(
    roll=Roll(), waveform_mixup=WaveformMixup(), time_roll=TimeRoll(),
    spectrogram_mixup=SpectrogramMixup(probability=1.0), mix_style=MixStyle(probability=1.0), time_mask=TimeMask(),
    filter_augment=FilterAugment(probability=1.0), frequency_warp=FrequencyWarp(probability=1.0), noise=Noise(),
    mixup=Mixup(probability=1.0), spec_augment=SpecAugment(),
)  # fmt: skip


def everything(places: Tensor, spec: Augment = EVERYTHING, device: str = "cpu") -> tuple[Tensor, Tensor, Targets]:
    augment, part = Augmentations(spec), Draw(1, 0, 0, places.to(device))
    own = {name: each[places].to(device) for name, each in targets(16).items()}
    given_ = waves(16)[places].to(device), LENGTHS.repeat(2)[places].to(device)
    waveforms, lengths, mixed = augment.waveforms(*given_, own, part)
    x, after = augment.features(features(16)[places].to(device), mixed, part)
    assert after is not None
    return torch.cat([waveforms, lengths[:, None]], 1).cpu(), x.cpu(), {name: t.cpu() for name, t in after.items()}


@pytest.mark.parametrize("world", [2, 4])
def test_any_device_changes_its_clips_as_one_device_does(world: int) -> None:
    wave, x, after = everything(torch.arange(16))
    for rank in range(world):
        places = torch.from_numpy(local_places(16, rank, world, 4))
        some, part, theirs = everything(places)
        assert torch.equal(some, wave[places])
        torch.testing.assert_close(part, x[places], rtol=1e-5, atol=1e-6)
        for name in theirs:
            assert torch.equal(theirs[name], after[name][places])


@pytest.mark.gpu
def test_a_gpu_changes_clips_as_a_cpu_does() -> None:
    """But for the roll's normal draws, whose bits are each device's own."""
    spec = EVERYTHING.model_copy(update={"time_roll": None})
    for ours, theirs in zip(
        everything(torch.arange(16), spec, "cuda"), everything(torch.arange(16), spec), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_step_is_drawn_the_same_again_and_other_steps_otherwise() -> None:
    first, again, other = changed(EVERYTHING), changed(EVERYTHING), changed(EVERYTHING, step=1)
    assert torch.equal(first[0], again[0]) and same(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[1] is not None and other[1] is not None and not torch.equal(first[1]["frame"], other[1]["frame"])


def test_fields_stand_in_the_order_in_which_they_are_done() -> None:
    """The order of EAT and AST, and that of the published training for sound events."""
    assert " ".join(Augment.model_fields) == (
        "roll waveform_mixup time_roll spectrogram_mixup mix_style time_mask filter_augment frequency_warp "
        "noise mixup spec_augment"
    )
    x, after = features(), targets()
    spec = EVERYTHING
    expected: tuple[Tensor, Targets | None] = (x, after)
    for name in list(Augment.model_fields)[2:]:  # one by one gives what all together give
        alone = Augment.model_validate({name: getattr(spec, name)})
        expected = Augmentations(alone).features(expected[0], expected[1], draw())
    ours = Augmentations(spec).features(x, after, draw())
    assert torch.equal(ours[0], expected[0]) and same(ours[1], expected[1])


def test_clips_without_labels_are_rolled_and_masked_but_not_mixed() -> None:
    only = Augment(spectrogram_mixup=SpectrogramMixup(probability=1.0), mixup=Mixup(probability=1.0))
    x, none = Augmentations(only).features(features(), None, draw())
    assert torch.equal(x, features()) and none is None
    for key in ("time_roll", "time_mask", "mix_style", "filter_augment", "frequency_warp"):
        alone = Augmentations(Augment.model_validate({key: getattr(EVERYTHING, key)}))
        x, none = alone.features(features(), None, draw())
        assert none is None and torch.equal(x, alone.features(features(), targets(), draw())[0])
        assert not torch.equal(x, features())
