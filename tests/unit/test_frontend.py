"""The front end: what a clip's features depend on, and what they do not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.frontend.build import LogMel, _sums, build_frontend
from c2ftool.frontend.kaldi import frame_count, log_mel
from c2ftool.spec.resolved import ResolvedFrontend


def spec(**changes: object) -> ResolvedFrontend:
    plain = {
        "sample_rate": 16_000, "mels": 64, "window": "hanning", "frame_length": 400, "hop": 160,
        "frames": 100, "mean": -4.268, "std": 4.569,
    }  # fmt: skip
    return ResolvedFrontend.model_validate({**plain, **changes})


def front_end(**changes: object) -> LogMel:
    return build_frontend(spec(**changes))


def sounds(clips: int = 4, samples: int = 16_240) -> Tensor:
    return torch.randint(-9000, 9000, (clips, samples), generator=torch.Generator().manual_seed(1)).to(torch.int16)


def test_frames_that_fit_are_counted() -> None:
    assert [frame_count(s, 400, 160) for s in (0, 399, 400, 559, 560, 160_000)] == [0, 0, 1, 1, 2, 998]


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(2, 600), st.integers(1, 700))
def test_the_filter_bank_makes_as_many_frames_as_counted(samples: int, length: int, hop: int) -> None:
    made = log_mel(torch.zeros(2, samples), sample_rate=16_000, mels=8, frame_length=length, hop=hop)
    assert made.shape == (2, frame_count(samples, length, hop), 8)


def test_int16_and_float_waveforms_give_the_same_features() -> None:
    whole, lengths = sounds(), torch.tensor([16_240, 9000, 400, 100])
    assert torch.equal(front_end()(whole, lengths), front_end()(whole.float() / 32768, lengths))


def test_a_float_batch_is_not_written_to() -> None:
    given_, lengths = sounds().float() / 32768, torch.full((4,), 16_240)
    before = given_.clone()
    front_end()(given_, lengths)
    assert torch.equal(given_, before)


@pytest.mark.parametrize(("hop", "frames"), [(160, 100), (320, 50), (160, 16)])
def test_a_clips_features_do_not_depend_on_the_batch_nor_on_padding(hop: int, frames: int) -> None:
    make = front_end(hop=hop, frames=frames)
    waveforms, lengths = sounds(6), torch.tensor([16_240, 12_345, 5000, 401, 400, 0])
    together = make(waveforms, lengths)
    for row, (clip, length) in enumerate(zip(waveforms, lengths, strict=True)):
        alone = make(clip[None, :length], length[None])
        assert torch.equal(together[row], alone[0])
        filled = clip.clone()
        filled[length:] = 30_000
        assert torch.equal(together[row], make(filled[None], length[None])[0])


def test_nothing_in_the_padding_can_spoil_a_clip() -> None:
    waveforms, lengths = sounds(2).float() / 32768, torch.tensor([16_240, 8000])
    clean = front_end()(waveforms, lengths)
    waveforms[1, 8000:] = float("nan")
    assert torch.equal(front_end()(waveforms, lengths), clean)


def test_short_clips_are_padded_with_log_mel_zero_and_long_ones_cut() -> None:
    make = front_end()
    waveforms = sounds(3, 20_000)
    features = make(waveforms, torch.tensor([20_000, 8000, 399]))
    assert features.shape == (3, 100, 64)
    own = frame_count(8000, 400, 160)
    pad = torch.tensor(make.pad_value)
    assert make.pad_value == pytest.approx(4.268 / (2 * 4.569))
    assert torch.allclose(features[1, own:], pad) and not torch.isclose(features[1, own - 1], pad).any()
    assert torch.allclose(features[2], pad)
    assert torch.equal(features[0], make(waveforms[:1, : spec().samples], torch.tensor([20_000]))[0])


def test_features_are_normalised_by_twice_the_deviation() -> None:
    waveforms, lengths = sounds(2), torch.full((2,), 16_240)
    plain = front_end(mean=0.0, std=0.5)(waveforms, lengths)
    assert torch.allclose(front_end()(waveforms, lengths), (plain + 4.268) / (2 * 4.569), atol=1e-6)


def test_an_offset_of_the_recording_changes_nothing() -> None:
    waveforms, lengths = sounds(2), torch.tensor([16_240, 7000])
    assert torch.allclose(front_end()(waveforms + 7000, lengths), front_end()(waveforms, lengths), atol=2e-5)


def test_silence_lies_at_the_floor() -> None:
    features = front_end(mean=0.0, std=0.5)(torch.zeros(1, 16_240, dtype=torch.int16), torch.tensor([16_240]))
    assert torch.allclose(features, torch.tensor(torch.finfo(torch.float32).eps).log())


def test_a_longer_hop_keeps_every_so_many_frames() -> None:
    """Frame shift in coarse phases: the window stays, so the frames that are left are the same ones."""
    waveforms, lengths = sounds(2), torch.tensor([16_240, 9000])
    fine = front_end()(waveforms, lengths)
    coarse = front_end(hop=640, frames=25)(waveforms, lengths)
    assert torch.allclose(coarse, fine[:, ::4], atol=1e-5)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_reduced_precision_of_the_model_does_not_reach_the_features(precision: str) -> None:
    """TF32 and bf16 products, and autocast, are meant for the model; log-mels need float32."""
    waveforms, lengths = sounds(2), torch.tensor([16_240, 9000])
    exact = front_end()(waveforms, lengths)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(front_end()(waveforms, lengths), exact)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.gpu
def test_features_on_a_gpu_are_those_of_the_cpu() -> None:
    waveforms, lengths = sounds(6), torch.tensor([16_240, 12_345, 5000, 401, 400, 0])
    on_cpu = front_end()(waveforms, lengths)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")  # as in training
        on_gpu = front_end()(waveforms.cuda(), lengths.cuda()).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    assert float((on_gpu - on_cpu).norm() / on_cpu.norm()) <= 2e-5


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"\(clips, samples\)"):
        log_mel(torch.zeros(16_000), sample_rate=16_000, mels=64, frame_length=400, hop=160)
    with pytest.raises(ValueError, match="int16"):
        log_mel(sounds(), sample_rate=16_000, mels=64, frame_length=400, hop=160)
    with pytest.raises(ValueError, match="unknown window 'hann'"):
        log_mel(torch.zeros(1, 16_000), sample_rate=16_000, mels=64, frame_length=400, hop=160, window="hann")


@pytest.mark.parametrize("samples", [0, 5, 256, 1000, 160_000])
def test_the_mean_of_a_16_bit_clip_is_exact_at_any_length_and_loudness(samples: int) -> None:
    loud = torch.full((1, samples), -32768, dtype=torch.int16)
    drawn = torch.randint(-32768, 32768, (3, samples), dtype=torch.int16, generator=torch.Generator().manual_seed(1))
    clips = torch.cat([loud, drawn])
    assert torch.equal(_sums(clips.float()), clips.sum(1, dtype=torch.int64).double())
