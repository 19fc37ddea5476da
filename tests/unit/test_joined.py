"""Several prepared sets as one: rows, names, statistics; refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from c2ftool.data.joined import JoinedSets
from c2ftool.data.record import write_record
from c2ftool.data.shard import ShardTask, write_made
from c2ftool.data.sources.listing import ClipRef, Listing
from c2ftool.data.store import PreparedSet
from c2ftool.data.write import shard_name
from c2ftool.errors import UsageError


def made(folder: Path, lengths: list[int], rate: int = 8000) -> PreparedSet:
    generator = np.random.default_rng(len(lengths))
    clips = [ClipRef(f"{folder.name}-{n}", f"{n}.wav", "train", 0, ()) for n in range(len(lengths))]
    waves = [generator.integers(-3000, 3000, length).astype(np.int16) for length in lengths]
    folder.mkdir()
    task = ShardTask(0, folder, folder / shard_name(0, 1), (), ("train",), rate, "wav")
    report = write_made(task, iter(list(zip(clips, waves, strict=True))))
    write_record(folder, folder.name, Listing("csv", folder, clips, [], ("train",)), rate, "wav", [report])
    return PreparedSet.open(folder)


def test_rows_of_all_sets_follow_one_another(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a", [900, 1000]), made(tmp_path / "b", [800, 1100, 1200])
    joint = JoinedSets([first, second])
    assert len(joint) == 5 and joint.ids == [*first.ids, *second.ids]
    assert joint.samples.tolist() == [900, 1000, 800, 1100, 1200]
    assert joint.rows_of(1, np.asarray([0, 2])).tolist() == [2, 4]
    for row, (source, own) in enumerate([(first, 0), (first, 1), (second, 0), (second, 1), (second, 2)]):
        np.testing.assert_array_equal(joint.waveform(row), source.waveform(own))
    assert joint.targets([0, 4]).shape == (2, 0)
    with pytest.raises(IndexError):
        joint.waveform(5)


def test_the_joint_statistics_are_those_of_all_samples(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a", [4000]), made(tmp_path / "b", [4000, 8000])
    info = JoinedSets([first, second]).info
    shares = np.asarray([0.25, 0.75])
    means, stds = np.asarray([first.info.mean, second.info.mean]), np.asarray([first.info.std, second.info.std])
    assert info.mean == pytest.approx(shares @ means)
    assert info.std**2 == pytest.approx(shares @ (stds**2 + means**2) - info.mean**2)
    assert info.name == "a + b" and info.fingerprint not in (first.info.fingerprint, second.info.fingerprint)


def test_sets_of_different_rates_cannot_be_joined(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a at 8000 Hz, b at 16000 Hz"):
        JoinedSets([made(tmp_path / "a", [900]), made(tmp_path / "b", [900], 16_000)])
