"""Every file is used, used with a remark, or put aside with a reason: the rules of c2ftool/data/decode.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from c2ftool.data.coding import HEADER, declared_wav_frames, decode_flac, encode
from c2ftool.data.decode import Unusable, decode

RATE = 16_000


def tone(seconds: float = 1.0, rate: int = RATE, amplitude: float = 0.3) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


def shortened(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def reason_of(path: Path, **part: float) -> str:
    with pytest.raises(Unusable) as caught:
        decode(path, RATE, **part)
    return caught.value.reason


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_lossless_16_bit_at_the_sets_rate_is_not_changed(tmp_path: Path, suffix: str) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 8000).astype(np.int16)
    soundfile.write(tmp_path / f"a.{suffix}", samples, RATE, subtype="PCM_16")
    decoded = decode(tmp_path / f"a.{suffix}", RATE)
    np.testing.assert_array_equal(decoded.samples, samples)
    assert decoded.handled == ()


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_lossy_files_keep_their_length_and_sound(tmp_path: Path, suffix: str) -> None:
    soundfile.write(tmp_path / f"a.{suffix}", tone(), RATE)
    decoded = decode(tmp_path / f"a.{suffix}", RATE)
    assert len(decoded.samples) == RATE
    assert np.corrcoef(decoded.samples, tone())[0, 1] > 0.99


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(), 0.5 * tone()
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    decoded = decode(tmp_path / "a.wav", RATE)
    assert decoded.handled == ("averaged to mono",)
    np.testing.assert_allclose(decoded.samples, np.rint(0.75 * tone() * 32768), atol=1)


def test_another_rate_is_resampled(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate=44_100), 44_100)
    decoded = decode(tmp_path / "a.wav", RATE)
    assert (decoded.source_rate, decoded.handled, len(decoded.samples)) == (44_100, ("resampled",), RATE)
    middle = slice(1000, -1000)
    np.testing.assert_allclose(decoded.samples[middle] / 32768, tone()[middle], atol=1e-3)


def test_halves_round_to_even_and_beyond_full_scale_is_clipped(tmp_path: Path) -> None:
    values = np.tile(np.array([0.5, 1.5, 2.5, -0.5, 40_000.0, -40_000.0]) / 32768, 200)
    soundfile.write(tmp_path / "a.wav", values, RATE, subtype="FLOAT")
    decoded = decode(tmp_path / "a.wav", RATE)
    assert decoded.samples[:6].tolist() == [0, 2, 2, 0, 32767, -32768]
    assert decoded.handled == ("clipped",)


def test_full_scale_itself_is_no_clipping(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.tile([1.0, -1.0], 1000), RATE, subtype="FLOAT")
    assert decode(tmp_path / "a.wav", RATE).handled == ()


def test_silence_is_kept_and_said(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    decoded = decode(tmp_path / "a.wav", RATE)
    assert decoded.handled == ("silent",)
    assert len(decoded.samples) == RATE


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_a_shortened_file_is_kept_above_half_of_its_length(tmp_path: Path, suffix: str) -> None:
    soundfile.write(tmp_path / f"a.{suffix}", tone(2.0) + np.random.default_rng(0).normal(0, 0.1, 2 * RATE), RATE)
    shortened(tmp_path / f"a.{suffix}", 0.8)
    decoded = decode(tmp_path / f"a.{suffix}", RATE)
    assert decoded.handled == ("truncated",)
    assert RATE < len(decoded.samples) < 2 * RATE
    shortened(tmp_path / f"a.{suffix}", 0.3)
    assert reason_of(tmp_path / f"a.{suffix}") == "truncated"


def test_garbled_flac_is_kept_from_its_second_half_on(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE)
    soundfile.write(tmp_path / "a.flac", noise, RATE)
    shortened(tmp_path / "a.flac", 0.9)
    assert decode(tmp_path / "a.flac", RATE).handled == ("truncated",)
    shortened(tmp_path / "a.flac", 0.3)
    assert reason_of(tmp_path / "a.flac") == "corrupt"


@pytest.mark.parametrize(("nibble", "count", "reason"), [(0x0F, b"\xff" * 4, "truncated"), (0, bytes(4), None)])
def test_flac_headers_that_lie_or_are_silent_about_the_length(
    tmp_path: Path, nibble: int, count: bytes, reason: str | None
) -> None:
    soundfile.write(tmp_path / "a.flac", tone(), RATE)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] = (data[21] & 0xF0) | nibble  # the upper 4 of the 36 bits of STREAMINFO's number of samples
    data[22:26] = count
    (tmp_path / "a.flac").write_bytes(data)
    if reason is None:
        assert len(decode(tmp_path / "a.flac", RATE).samples) == RATE
    else:
        assert reason_of(tmp_path / "a.flac") == reason


def test_wav_written_to_a_pipe_has_no_length_and_is_whole(tmp_path: Path) -> None:
    data = bytearray(encode(np.full(RATE, 100, np.int16), RATE, "wav"))
    data[4:8] = data[40:44] = b"\xff" * 4
    (tmp_path / "a.wav").write_bytes(data)
    decoded = decode(tmp_path / "a.wav", RATE)
    assert (len(decoded.samples), decoded.handled) == (RATE, ())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not audio at all, but text\n" * 50, "corrupt"),
        (encode(np.zeros(0, np.int16), RATE, "wav"), "empty"),
    ],
    ids=["no bytes", "text", "header only"],
)
def test_no_audio(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert reason_of(tmp_path / "a.wav") == reason


def test_a_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "a.wav") == "unreadable"


@pytest.mark.parametrize(
    ("values", "reason"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (1e30, "out of scale"), (20_000.0, "out of scale")],
)
def test_samples_that_are_no_sound(tmp_path: Path, values: float, reason: str) -> None:
    samples = tone()
    samples[100] = values
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert reason_of(tmp_path / "a.wav") == reason


def test_limits_of_length_channels_and_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", tone(0.049), RATE)
    soundfile.write(tmp_path / "enough.wav", tone(0.05), RATE)
    soundfile.write(tmp_path / "wide.wav", np.zeros((2000, 65)), RATE)
    soundfile.write(tmp_path / "slow.wav", tone(), 999)
    soundfile.write(tmp_path / "fast.wav", np.zeros(800_000), 800_000)
    assert reason_of(tmp_path / "short.wav") == "too short"
    assert len(decode(tmp_path / "enough.wav", RATE).samples) == 800
    assert reason_of(tmp_path / "wide.wav") == "channels"
    assert reason_of(tmp_path / "slow.wav") == "sample rate"
    assert reason_of(tmp_path / "fast.wav") == "sample rate"


def test_more_than_two_hours_is_too_long(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros(7300 * 1000, np.int16), 1000)
    assert reason_of(tmp_path / "a.flac") == "too long"


def test_a_part_of_a_file(tmp_path: Path) -> None:
    samples = np.arange(2 * RATE).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    np.testing.assert_array_equal(decode(tmp_path / "a.flac", RATE, 0.5, 1.25).samples, samples[8_000:20_000])
    np.testing.assert_array_equal(decode(tmp_path / "a.flac", RATE, 1.5).samples, samples[24_000:])
    assert reason_of(tmp_path / "a.flac", start=2.5) == "too short"


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=300), st.sampled_from([8_000, 16_000, 44_100]))
def test_both_codings_are_exact(values: list[int], rate: int) -> None:
    samples = np.array(values, np.int16)
    np.testing.assert_array_equal(np.frombuffer(encode(samples, rate, "wav"), "<i2", offset=HEADER), samples)
    np.testing.assert_array_equal(decode_flac(encode(samples, rate, "flac")), samples)


def test_the_header_is_a_wav_for_others(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(np.arange(1000, dtype=np.int16), 32_000, "wav"))
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.frames, info.channels, info.subtype) == (32_000, 1000, 1, "PCM_16")
    assert declared_wav_frames(tmp_path / "a.wav") == 1000
