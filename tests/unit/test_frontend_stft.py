"""Every published front end: how short clips are filled up, what a clip depends on, and the jitter of the bank."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.frontend.banks import mel_bank
from c2ftool.frontend.build import LogMel, build_frontend, raw_log_mel
from c2ftool.frontend.stft import log_mel
from c2ftool.spec import frontends
from c2ftool.spec.frontends import Padding
from c2ftool.spec.resolved import ResolvedFrontend
from c2ftool.spec.spectrum import Spectrum

NAMES = ("AST", "BEATS", "ASIT", "ATST", "FPASST", "M2D", "PANNS")
FRAMES = 20


def spec(name: str, **changes: object) -> ResolvedFrontend:
    """A published front end of few frames."""
    default = getattr(frontends, name)
    rate = default.sample_rate
    values = {
        "sample_rate": rate, "mels": default.mels, "window": default.window, "frames": FRAMES,
        "frame_length": default.frame_length_ms * rate // 1000, "hop": default.hop_ms * rate // 1000,
        "mean": -4.268 if default.mean is None else default.mean, "std": 4.569 if default.std is None else default.std,
        "pad": default.pad, "spectrum": default.spectrum,
    }  # fmt: skip
    return ResolvedFrontend.model_validate({**values, **changes})


def front_end(name: str, **changes: object) -> LogMel:
    return build_frontend(spec(name, **changes))


@cache
def sounds(clips: int = 4, samples: int = 8000) -> Tensor:
    return torch.randint(-9000, 9000, (clips, samples), generator=torch.Generator().manual_seed(1)).to(torch.int16)


def draw(step: int, rows: tuple[int, ...] = (0,)) -> Draw:
    return Draw(seed=7, phase=0, step=step, rows=torch.tensor(rows))


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("pad", ["log_mel", "silence", "repeat"])
@pytest.mark.parametrize("name", NAMES)
def test_every_front_end_takes_clips_of_any_length(name: str, pad: Padding) -> None:
    make = front_end(name, pad=pad)
    lengths = torch.tensor([8000, make.spec.samples, 3000, 512, 2, 1, 0])
    whole = make(sounds(7), lengths)
    assert whole.shape == (7, FRAMES, make.spec.mels) and whole.dtype == torch.float32
    assert whole.isfinite().all()
    assert close(whole, make(sounds(7).float() / 32768, lengths))
    assert make(sounds(7)[:, :0], torch.zeros(7, dtype=torch.int64)).isfinite().all()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(["log_mel", "silence", "repeat"]),
    st.lists(st.integers(0, 8000), min_size=2, max_size=4),
    st.integers(1, 3),
)
def test_a_clip_in_a_batch_is_the_clip_alone(name: str, pad: Padding, lengths: list[int], factor: int) -> None:
    """Neither the other clips nor what lies beyond a clip's end matters, at any hop."""
    plain = spec(name)
    make = front_end(name, pad=pad, hop=plain.hop * factor)
    clips = sounds(len(lengths)).float() / 32768
    together = make(clips, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = make(clips[row : row + 1, :length], torch.tensor([length]))
        assert close(together[row], alone[0])
        spoilt = clips[row : row + 1].clone()
        spoilt[:, length:] = float("nan")
        assert close(make(spoilt, torch.tensor([length]))[0], alone[0])


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(NAMES), st.integers(1, 7000))
def test_repeating_is_tiling(name: str, length: int) -> None:
    make = front_end(name, pad="repeat")
    samples = make.spec.samples
    clip = sounds(1)[:, :length].numpy()
    tiled = np.tile(clip, (1, samples // length + 1))[:, :samples]
    repeated = make(torch.from_numpy(clip), torch.tensor([length]))
    assert torch.equal(repeated, make(torch.from_numpy(tiled), torch.tensor([samples])))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([n for n in NAMES if not getattr(frontends, n).spectrum.remove_mean]), st.integers(0, 7000))
def test_silence_is_zeros_in_the_waveform(name: str, length: int) -> None:
    make = front_end(name, pad="silence")
    samples = make.spec.samples
    length = min(length, samples)
    filled = torch.zeros(1, samples, dtype=torch.int16)
    filled[:, :length] = sounds(1)[:, :length]
    features = make(sounds(1)[:, :length], torch.tensor([length]))
    assert torch.equal(features, make(filled, torch.tensor([samples])))


def test_a_clips_mean_is_its_own_where_silence_follows() -> None:
    """An offset of the recording makes no step at the clip's end."""
    make = front_end("ASIT")
    clips, lengths = sounds(2)[:, :1500], torch.tensor([1500, 900])
    assert torch.allclose(make(clips + 7000, lengths), make(clips, lengths), atol=2e-5)


def test_what_a_frame_of_silence_becomes() -> None:
    """The floor of each front end's log, normalised."""
    floors = {
        "BEATS": (np.log(2.0**-23) - 15.41663) / (2 * 6.55582),
        "ATST": (-50 + 79.6482) / (50.6842 + 79.6482) * 2 - 1,
        "FPASST": (np.log(1e-7) + 4.5) / 5,
        "M2D": (np.log(2.0**-23) + 7.1) / 4.2,
        "PANNS": -100.0,
    }
    for name, floor in floors.items():
        features = front_end(name)(torch.zeros(1, 3000, dtype=torch.int16), torch.tensor([3000]))
        assert torch.allclose(features, torch.tensor(floor, dtype=torch.float32), rtol=1e-6, atol=1e-6), name


@pytest.mark.parametrize("name", ["ATST", "FPASST", "M2D", "PANNS"])
def test_padding_in_the_log_mel_leaves_a_clips_own_frames(name: str) -> None:
    """Centred frames of a shorter clip are mirrored at its own end; after them the log-mel is 0."""
    make = front_end(name, pad="log_mel")
    length = 5 * make.spec.hop + 7
    features = make(sounds(2), torch.tensor([length, 8000]))
    raw = raw_log_mel(sounds(2)[:1, :length], make.spec)
    assert close(features[:1, :6], (raw - make.spec.mean) / (2 * make.spec.std)) and raw.shape[1] == 6
    assert torch.allclose(features[0, 6:], torch.tensor(make.pad_value))


@pytest.mark.parametrize("name", NAMES)
def test_the_raw_log_mel_is_what_is_normalised(name: str) -> None:
    plain = spec(name)
    clips = sounds()[:, : plain.samples]
    features = build_frontend(plain)(clips, torch.full((4,), plain.samples))
    assert close(features, (raw_log_mel(clips, plain) - plain.mean) / (2 * plain.std))
    assert raw_log_mel(sounds(), plain).shape[1] > plain.frames  # neither cut


def test_a_longer_hop_keeps_every_so_many_centred_frames() -> None:
    fine = front_end("PANNS", frames=21)(sounds(), torch.full((4,), 6400))
    coarse = front_end("PANNS", frames=6, hop=1280)(sounds(), torch.full((4,), 6400))
    assert close(coarse, fine[:, ::4])


@pytest.mark.parametrize("pad", ["log_mel", "silence"])
def test_pooling_of_centred_log_mels(pad: Padding) -> None:
    pool = {"reduce": "avg", "time": 4, "mel": 2, "at": "log_mel"}
    lengths = torch.tensor([7000, 2000, 10])
    plain = front_end("M2D", pad=pad)(sounds(3), lengths)
    pooled = front_end("M2D", pad=pad, pool=pool)(sounds(3), lengths)
    assert pooled.shape == (3, FRAMES // 4, 40)
    means = plain.unfold(1, 4, 4).unfold(2, 2, 2).mean((-1, -2))
    whole = 13 // 4 if pad == "log_mel" else FRAMES // 4  # pooled frames of the second clip's own
    assert close(pooled[0], means[0]) and close(pooled[1, :whole], means[1, :whole])


def test_the_floor_below_the_loudest_value_is_each_clips_own() -> None:
    make = front_end("ATST", mean=0.0, std=0.5)
    t = torch.arange(8000) / 16_000
    loud = 0.9 * torch.sin(2 * torch.pi * 3000 * t)
    quiet = 1e-4 * loud
    features = make(torch.stack([loud, quiet]), torch.full((2,), 8000))
    assert features[1].max() < features[0].min() + 20
    for row, clip in enumerate((loud, quiet)):
        assert close(features[row], make(clip[None], torch.tensor([8000]))[0])
    assert features[0].min() == pytest.approx(float(features[0].max()) - 80, abs=1e-3)


def test_the_loudest_value_is_of_a_clips_own_frames() -> None:
    """A click lies between two frames, and its mirror image beyond the clip's end on one, where it is louder."""
    clips = torch.zeros(1, 8000)
    clips[0, 2000] = 900.0  # so loud that what lies 80 dB below is above the least value
    length = 3241
    make = front_end("ATST", frames=60, pad="log_mel", mean=0.0, std=0.5)
    alone = raw_log_mel(clips[:, :length], make.spec)
    assert close(make(clips, torch.tensor([length]))[:, : alone.shape[1]], alone)


def test_only_whole_pools_of_a_clips_own_frames_are_kept() -> None:
    pool = {"reduce": "avg", "time": 4, "mel": 1, "at": "log_mel"}
    make = front_end("FPASST", pad="log_mel", pool=pool)
    pooled = make(sounds(2), torch.tensor([1121, 1120]))  # of eight frames, and of seven: emphasis takes a sample
    padding = torch.isclose(pooled, torch.tensor(make.pad_value)).all(-1).sum(1)
    assert padding.tolist() == [3, 4]


def test_no_level_below_the_floor_or_above_the_clamp() -> None:
    features = front_end("ATST", mean=0.0, std=0.5)(sounds().float() * 100, torch.full((4,), 8000))
    assert features.max() == 80.0
    assert front_end("ATST", mean=0.0, std=0.5)(sounds() // 9000, torch.full((4,), 8000)).min() >= -50.0


def test_jitter_is_of_the_step_and_of_training_alone() -> None:
    make, lengths = front_end("FPASST"), torch.full((4,), 8000)
    still = make(sounds(), lengths)
    drawn = [make(sounds(), lengths, draw(step, (0, 1, 2, 3))) for step in range(4)]
    assert all(not torch.equal(still, x) for x in drawn)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[2], make(sounds(), lengths, draw(2, (0, 1, 2, 3))))
    assert close(drawn[3][1:2], make(sounds()[1:2], lengths[1:2], draw(3, (1,))))  # one draw for the batch
    assert torch.equal(still, make(sounds(), lengths))
    steady = spec("FPASST").spectrum.model_copy(update={"jitter": None})
    assert torch.equal(still, front_end("FPASST", spectrum=steady)(sounds(), lengths, draw(0)))


def test_jitter_moves_the_banks_edges_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Spectrum] = []

    def watched(*args: Any, **named: Any) -> Tensor:
        seen.append(named["spectrum"])
        return log_mel(*args, **named)

    monkeypatch.setattr("c2ftool.frontend.stft.log_mel", watched)
    make = front_end("FPASST")
    for step in range(60):
        make(sounds()[:1, :400], torch.tensor([400]), draw(step))
    lows, highs = {s.low_hz for s in seen}, {s.high_hz or 0.0 for s in seen}
    assert lows == set(range(10))
    assert all(h == int(h) and 6000 < h <= 8000 for h in highs)
    assert len(highs) > 50 and min(highs) < 6300 and max(highs) > 7700


@pytest.mark.parametrize("name", ["BEATS", "ATST", "M2D"])
def test_reduced_precision_of_the_model_does_not_reach_any_front_end(name: str) -> None:
    make, lengths = front_end(name), torch.tensor([8000, 3000, 5, 0])
    exact = make(sounds(), lengths)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(make(sounds(), lengths), exact)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.gpu
@pytest.mark.parametrize("pad", ["log_mel", "silence", "repeat"])
@pytest.mark.parametrize("name", NAMES)
def test_every_front_end_on_a_gpu_is_that_of_the_cpu(name: str, pad: Padding) -> None:
    make, lengths = front_end(name, pad=pad), torch.tensor([8000, 3000, 5, 0])
    on_cpu = make(sounds(), lengths, draw(1))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        on_gpu = make(sounds().cuda(), lengths.cuda(), draw(1)).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    assert float((on_gpu - on_cpu).norm() / on_cpu.norm()) <= 2e-5


def test_slaney_triangles_have_area_one_and_kaldis_height_one() -> None:
    cpu = torch.device("cpu")
    slaney = mel_bank("slaney", 20, 8192, 16_000, 50.0, 8000.0, cpu)
    assert torch.allclose(slaney.sum(0) * 16_000 / 8192, torch.ones(20), atol=1e-2)
    for scale in ("kaldi", "htk"):
        bank: Literal["kaldi", "htk"] = scale
        assert torch.allclose(mel_bank(bank, 20, 8192, 16_000, 50.0, 8000.0, cpu).amax(0), torch.ones(20), atol=0.1)


def test_bands_above_half_the_rate_have_no_weight() -> None:
    """HTS-AT at 16 kHz keeps its 64 bands up to 14 kHz: 9 are empty, and the others lie where they were."""
    cpu = torch.device("cpu")
    bank = mel_bank("slaney", 64, 1024, 16_000, 50.0, 14_000.0, cpu)
    assert int((bank.sum(0) == 0).sum()) == 9
    assert [int(bank[:, band].argmax()) for band in (10, 30, 50)] == [41, 135, 411]
    assert not torch.equal(bank, mel_bank("slaney", 64, 1024, 16_000, 50.0, 8000.0, cpu))
    with pytest.raises(ValueError, match="between 9000 and 8000 Hz"):
        mel_bank("htk", 64, 512, 16_000, 9000.0, 14_000.0, cpu)


def test_centred_frames_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match="int16"):
        log_mel(sounds(), sample_rate=16_000, mels=8, frame_length=400, hop=160, spectrum=frontends.M2D.spectrum)
    with pytest.raises(ValueError, match=r"\(clips, samples\)"):
        log_mel(
            torch.zeros(800), sample_rate=16_000, mels=8, frame_length=400, hop=160, spectrum=frontends.M2D.spectrum
        )
