"""`c2f prepare` as users run it: what it makes, what it says, and that nothing interrupts it for good."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from c2ftool.data.store import PreparedSet

COMMAND = [sys.executable, "-m", "c2ftool", "prepare"]
RATE = 16_000


def c2f(root: Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, env=environment(root), timeout=300, **options
    )


def start(root: Path, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment(root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # a suite started in the background of a script ignores Ctrl-C, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def environment(root: Path) -> dict[str, str]:
    here = str(Path(__file__).parents[2])
    return {**os.environ, "C2F_DATA": str(root), "OMP_NUM_THREADS": "1", "PYTHONPATH": here}


def tree(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def sound(number: int, seconds: float, rate: int) -> np.ndarray:
    return np.random.default_rng(number).normal(0, 0.1, round(seconds * rate))


def children(process: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 clips in two class folders with splits: formats, rates and channels mixed."""
    folder = tmp_path_factory.mktemp("audio")
    for number in range(100):
        split = "test" if number % 5 == 0 else "train"
        where = folder / split / ("dog" if number % 2 else "cat")
        where.mkdir(parents=True, exist_ok=True)
        suffix = ("wav", "flac", "ogg")[number % 3]
        rate = (16_000, 44_100)[number % 2]
        samples = sound(number, 0.5 + 0.01 * number, rate)
        stereo = np.stack([samples, samples], 1)
        soundfile.write(where / f"{number:03d}.{suffix}", stereo if number % 7 == 0 else samples, rate)
    return folder


@pytest.fixture(scope="module")
def whole(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set that every other way of making it must equal."""
    root = tmp_path_factory.mktemp("whole")
    result = c2f(root, "folder", "--from", audio, "--name", "birds", "--jobs", 1)
    assert result.returncode == 0, result.stderr
    return root / "birds"


def test_a_set_is_made_and_summed_up(audio: Path, tmp_path: Path) -> None:
    result = c2f(tmp_path, "folder", "--from", audio, "--name", "birds")
    assert result.returncode == 0, result.stderr
    for part in ("2 classes, 16000 Hz", "train", "50 at 44100 Hz", "15 averaged to mono", "log-mel mean", "birds"):
        assert part in result.stdout
    assert "prepared 100 of 100 clips" in result.stderr
    prepared = PreparedSet.open(tmp_path / "birds")
    assert prepared.info.splits == {"train": 80, "test": 20}
    assert prepared.info.classes == ["cat", "dog"]
    assert prepared.info.handled == {"averaged to mono": 15, "resampled": 50}
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["birds"]


def test_jobs_do_not_change_a_byte(audio: Path, whole: Path, tmp_path: Path) -> None:
    assert c2f(tmp_path, "folder", "--from", audio, "--name", "birds", "--jobs", 3).returncode == 0
    assert tree(tmp_path / "birds") == tree(whole)


def test_parts_make_the_same_set_as_one_call(audio: Path, whole: Path, tmp_path: Path) -> None:
    for part in ("2/3", "0/3", "1/3"):
        result = c2f(tmp_path, "folder", "--from", audio, "--name", "birds", "--part", part, "--jobs", 1)
        assert result.returncode == 0, result.stderr
        assert not (tmp_path / "birds").exists()
    result = c2f(tmp_path, "folder", "--from", audio, "--name", "birds")
    assert "7 of 7 shards kept" in result.stderr
    assert tree(tmp_path / "birds") == tree(whole)


def test_parts_with_other_settings_are_refused(audio: Path, tmp_path: Path) -> None:
    assert c2f(tmp_path, "folder", "--from", audio, "--name", "birds", "--part", "0/2").returncode == 0
    result = c2f(tmp_path, "folder", "--from", audio, "--name", "birds", "--part", "1/2", "--rate", 8000)
    assert (result.returncode, "another rate" in result.stderr) == (3, True)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_makes_the_same_set(audio: Path, whole: Path, tmp_path: Path) -> None:
    moments = random.Random(0)
    partial = tmp_path / "birds.partial"
    for kill in range(8):
        process = start(tmp_path, "folder", "--from", audio, "--name", "birds", "--jobs", 2)
        for _ in range(3000):  # until one more shard is finished than the kill before had to see, or the job ends
            if process.poll() is not None or len(list(partial.glob("data-*.json"))) >= kill:
                break
            time.sleep(0.01)
        time.sleep(moments.random() * (0.05 if kill else 1.5))
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for _ in range(500):
            if not any(Path(f"/proc/{worker}").exists() for worker in workers):
                break
            time.sleep(0.01)
        else:
            pytest.fail("a killed prepare left its workers behind")
        if (tmp_path / "birds").exists():
            break
        assert not (tmp_path / "birds").exists()
    else:
        assert c2f(tmp_path, "folder", "--from", audio, "--name", "birds").returncode == 0
    assert tree(tmp_path / "birds") == tree(whole)
    assert not partial.exists()


@pytest.mark.slow
def test_killed_workers_are_replaced(audio: Path, whole: Path, tmp_path: Path) -> None:
    moments = random.Random(1)
    process = start(tmp_path, "folder", "--from", audio, "--name", "birds", "--jobs", 2)
    killed = 0
    while process.poll() is None and killed < 3:
        time.sleep(1.0 + moments.random())
        for worker in children(process.pid)[-1:]:
            os.kill(worker, signal.SIGKILL)
            killed += 1
    assert process.wait(120) == 0
    assert killed
    assert tree(tmp_path / "birds") == tree(whole)


def test_bad_files_are_put_aside_with_their_reason(tmp_path: Path) -> None:
    folder = tmp_path / "audio" / "noise"
    folder.mkdir(parents=True)
    for number in range(3):
        soundfile.write(folder / f"good{number}.wav", sound(number, 1, RATE), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    soundfile.write(folder / "short.wav", sound(9, 0.01, RATE), RATE)
    soundfile.write(folder / "many.wav", np.zeros((RATE, 70)), RATE)
    (folder / "empty.mp3").write_bytes(b"")
    (folder / "text.flac").write_bytes(b"text" * 500)
    data = (folder / "good0.wav").read_bytes()
    (folder / "cut.wav").write_bytes(data[:5000])
    result = c2f(tmp_path, "folder", "--from", tmp_path / "audio", "--name", "noise", "--json")
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["finished"] is True
    assert {item["path"].removeprefix("noise/"): item["reason"] for item in summary["quarantine"]} == {
        "nan.wav": "not finite",
        "short.wav": "too short",
        "many.wav": "channels",
        "empty.mp3": "empty",
        "text.flac": "corrupt",
        "cut.wav": "truncated",
    }
    assert (summary["splits"], summary["handled"]) == ({"train": 4}, {"silent": 1})
    prepared = PreparedSet.open(tmp_path / "noise")
    assert prepared.ids == ["noise/good0", "noise/good1", "noise/good2", "noise/silent"]
    assert prepared.info.frames == 3 * 98, "a silent clip is no part of the statistics"


def test_a_set_of_nothing_but_bad_files_is_none(tmp_path: Path) -> None:
    (tmp_path / "audio" / "dog").mkdir(parents=True)
    (tmp_path / "audio" / "dog" / "a.wav").write_bytes(b"")
    result = c2f(tmp_path, "folder", "--from", tmp_path / "audio", "--name", "dogs")
    assert result.returncode == 3
    assert "1 empty" in result.stderr
    assert not (tmp_path / "dogs").exists()


def test_what_is_there_is_not_overwritten_unasked(audio: Path, tmp_path: Path) -> None:
    arguments = ("csv", "--from", tmp_path / "clips.csv", "--name", "birds")
    (tmp_path / "clips.csv").write_text(f"path,label,split\n{audio}/test/cat/000.wav,cat,train\n")
    assert c2f(tmp_path, *arguments).returncode == 0
    again = c2f(tmp_path, *arguments)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert "--name" in again.stderr
    (tmp_path / "clips.csv").write_text(f"path,label,split\n{audio}/test/cat/010.flac,dog,train\n")
    assert c2f(tmp_path, *arguments, "--overwrite").returncode == 0
    assert PreparedSet.open(tmp_path / "birds").info.classes == ["dog"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    refused = c2f(tmp_path, *arguments[:-1], "mine", "--overwrite")
    assert (refused.returncode, "no prepared set" in refused.stderr) == (2, True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_second_process_on_the_same_set_is_refused(audio: Path, tmp_path: Path) -> None:
    process = start(tmp_path, "folder", "--from", audio, "--name", "birds", "--jobs", 1)
    for _ in range(2000):
        if (tmp_path / "birds.partial").exists():
            break
        time.sleep(0.01)
    second = c2f(tmp_path, "folder", "--from", audio, "--name", "birds")
    first_was_quick = process.poll() is not None
    assert process.wait(120) == 0
    assert second.returncode == 2
    assert first_was_quick or "in use by" in second.stderr
    PreparedSet.open(tmp_path / "birds")


def test_a_disk_that_is_full_leaves_nothing_half_written(audio: Path, whole: Path, tmp_path: Path) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = c2f(tmp_path, "folder", "--from", audio, "--name", "birds", preexec_fn=little_room)
    assert result.returncode == 1
    assert "disk full (File too large)" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "birds").exists()
    assert not list((tmp_path / "birds.partial").glob("*.arrow*"))
    assert c2f(tmp_path, "folder", "--from", audio, "--name", "birds").returncode == 0
    assert tree(tmp_path / "birds") == tree(whole)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("esc5", "--from", "."), 2, "did you mean esc50"),
        (("esc50",), 2, "--from"),
        (("esc50", "--from", "nowhere"), 3, "no such folder"),
        (("folder", "--from", "AUDIO", "--part", "3/3"), 2, "--part 0/N"),
        (("folder", "--from", "AUDIO", "--coding", "mp3"), 2, "unknown coding"),
        (("folder", "--from", "AUDIO", "--rate", "7"), 2, "--rate"),
        (("folder", "--from", "AUDIO", "--name", "../x"), 2, "--name"),
        (("folder", "--from", "AUDIO", "--name", "demo"), 2, "built-in"),
        (("esc50", "--from", "AUDIO"), 3, "meta/esc50.csv"),
        (("folder", "--from", "AUDIO", "--to", "/dev/null/x"), 1, "cannot be written"),
        (("demo", "--from", "AUDIO"), 2, "built in"),
    ],
)
def test_wrong_use_ends_with_a_message_and_a_code(
    audio: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = c2f(tmp_path, *(str(audio) if item == "AUDIO" else item for item in arguments), cwd=tmp_path)
    assert (result.returncode, message in result.stderr) == (code, True), result.stderr
    assert "Traceback" not in result.stderr
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_ctrl_c_stops_it_with_its_own_code(audio: Path, whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path, "folder", "--from", audio, "--name", "birds", "--jobs", 1)
    for _ in range(2000):
        if (tmp_path / "birds.partial" / "plan.json").exists():
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert c2f(tmp_path, "folder", "--from", audio, "--name", "birds").returncode == 0
    assert tree(tmp_path / "birds") == tree(whole)


def test_flac_coding_holds_the_same_samples(audio: Path, whole: Path, tmp_path: Path) -> None:
    assert c2f(tmp_path, "folder", "--from", audio, "--name", "birds", "--coding", "flac").returncode == 0
    flac, wav = PreparedSet.open(tmp_path / "birds"), PreparedSet.open(whole)
    assert (flac.info.mean, flac.info.std, flac.info.coding) == (wav.info.mean, wav.info.std, "flac")
    for row in (0, 50, 99):
        np.testing.assert_array_equal(flac.waveform(row), wav.waveform(row))
