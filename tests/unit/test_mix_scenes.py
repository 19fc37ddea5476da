"""Mixed scenes: labels that fit the sound, folds kept apart, sources named, and nothing lost or half written."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 22_050  # of the recordings, so that they are resampled
PITCHES = {"low": 700.0, "middle": 1500.0, "high": 3200.0}
TICKS = 5200.0
SECONDS = 6.0


@pytest.fixture(scope="module")
def recipe():
    path = Path(__file__).parents[2] / "recipes" / "mix_scenes.py"
    spec = importlib.util.spec_from_file_location("mix_scenes", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def tone(pitch: float, seconds: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)


def recording(category: str, fold: int) -> np.ndarray:
    """5 s: a tone throughout, two tones in digital silence, or a short tone each second."""
    if category == "low":
        return tone(PITCHES[category], 5.0)
    sound = np.zeros(5 * RATE)
    onsets = [0.2, 1.2, 2.2, 3.2] if category == "ticks" else [0.1 * fold, 3.0]
    for onset in onsets:
        part = tone(PITCHES.get(category, TICKS), 0.05 if category == "ticks" else 0.5 + 0.1 * fold)
        sound[round(onset * RATE) :][: len(part)] += part
    return sound


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """4 classes in 5 folds, a recording of each; one more of fold 1 has a sound that is too short."""
    folder = tmp_path_factory.mktemp("esc")
    (folder / "audio").mkdir()
    (folder / "meta").mkdir()
    rows, told = [], []
    for number, category in enumerate([*PITCHES, "ticks"]):
        for fold in range(1, 6):
            source = f"{number}{fold:03d}"
            name = f"{fold}-{source}-A-{number}.flac"
            soundfile.write(folder / "audio" / name, recording(category, fold), RATE)
            rows.append((name, fold, number, category, True, source, "A"))
            told.append((name, f"title, {category}", f"http://x/{source}", f"author {fold}", "CC-BY"))
    click = np.zeros(5 * RATE)
    click[:2000] = tone(900.0, 2000 / RATE)
    soundfile.write(folder / "audio" / "1-9-A-0.flac", click, RATE)
    rows.append(("1-9-A-0.flac", 1, 0, "low", True, "9", "A"))
    write(folder / "meta" / "esc50.csv", ["filename", "fold", "target", "category", "esc10", "src_file", "take"], rows)
    write(folder / "meta" / "attribution.csv", ["filename", "title", "url", "author", "licence"], told)
    return folder


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def read(path, delimiter=","):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def arguments(recordings, target, *more):
    sizes = ["--clips", "8", "2", "3", "--seconds", str(SECONDS)]
    return ["--from", str(recordings), "--to", str(target), *sizes, *more]


@pytest.fixture(scope="module")
def scenes(recipe, recordings, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("made") / "deep" / "scenes"
    assert recipe.main(arguments(recordings, target, "--seed", "3")) == 0
    return target


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def labels(scenes: Path) -> dict[tuple[str, str], list[tuple[float, float, str]]]:
    found = defaultdict(list)
    for split in ("train", "valid", "test"):
        for row in read(scenes / f"{split}.tsv", "\t"):
            found[split, row["filename"]].append((float(row["onset"]), float(row["offset"]), row["event_label"]))
    return found


def band_level(samples: np.ndarray, pitch: float) -> np.ndarray:
    """The level around a frequency at each sample, over 5 ms."""
    turned = samples * np.exp(-2j * np.pi * pitch * np.arange(len(samples)) / 16_000)
    return np.abs(np.convolve(turned, np.ones(80) / 80, mode="same"))


def test_scenes_have_the_stated_form(scenes):
    found = labels(scenes)
    for split, count in (("train", 8), ("valid", 2), ("test", 3)):
        names = [f"{split}-{number:04d}.flac" for number in range(1, count + 1)]
        assert sorted(path.name for path in (scenes / "audio" / split).iterdir()) == names
        assert list(dict.fromkeys(name for part, name in found if part == split)) == names
        for name in names:
            info = soundfile.info(scenes / "audio" / split / name)
            assert (info.samplerate, info.channels, info.format, info.subtype) == (16_000, 1, "FLAC", "PCM_16")
            assert info.frames == SECONDS * 16_000
    for events in found.values():
        assert 1 <= len(events) <= 5
        assert events == sorted(events, key=lambda event: event[0])
        for onset, offset, label in events:
            assert 0 <= onset < offset <= SECONDS
            assert 0.25 <= round(offset - onset, 3) <= 3.0  # half a scene
            assert label in {*PITCHES, "ticks"}
        for (a, b, first), (c, d, second) in combinations(events, 2):
            assert first != second or c - b > 0.3 or a - d > 0.3, "events of one class keep their distance"


def test_sounds_begin_and_end_where_the_labels_say(scenes):
    """Each class is a pitch of its own: the scene has that pitch within its events and nowhere else."""
    checked = 0
    for (split, name), events in labels(scenes).items():
        samples, _ = soundfile.read(scenes / "audio" / split / name)
        for label, pitch in PITCHES.items():
            level = band_level(samples, pitch)
            outside = np.ones(len(level), bool)
            strengths = []
            for onset, offset in [(onset, offset) for onset, offset, which in events if which == label]:
                first, last = round(onset * 16_000), round(offset * 16_000)
                start = max(first - 1600, 0)
                strengths.append(np.median(level[first:last]))
                loud = start + np.flatnonzero(level[start : last + 1600] > strengths[-1] / 2)
                assert abs(loud[0] - first) <= 160 and abs(loud[-1] - last) <= 160  # 10 ms, as the fades are long
                outside[max(first - 400, 0) : last + 400] = False
                checked += 1
            assert not strengths or np.quantile(level[outside], 0.9) < min(strengths) / 2
    assert checked > 10


def test_ticks_are_one_event_from_first_to_last(recipe):
    sounding = np.zeros(4000, bool)
    for tick in (200, 1200, 2200, 3200):
        sounding[tick : tick + 50] = True
    assert recipe.long_stretches(sounding) == [(200, 3250)]
    sounding[2200:2500] = True  # long enough by itself, so that nothing need be bridged
    assert recipe.long_stretches(sounding) == [(2200, 2500)]
    sounding[2790:2850] = True
    assert recipe.long_stretches(sounding) == [(2200, 2850)]
    assert recipe.long_stretches(np.zeros(500, bool)) == []
    assert recipe.long_stretches(np.ones(249, bool)) == []
    assert recipe.long_stretches(np.ones(250, bool)) == [(0, 250)]


def test_sound_is_what_is_heard_above_quiet_and_rumble(recipe):
    t = np.arange(32_000) / 16_000
    sound = np.where((t >= 0.5) & (t < 1.2), 0.1 * np.sin(2 * np.pi * 1000 * t), 0.0)
    rumble, tail = 0.2 * np.sin(2 * np.pi * 25 * t), 0.008 * np.sin(2 * np.pi * 1000 * t)  # the tail is 22 dB below
    for scene in (sound, sound + tail, sound + rumble):
        sounding = np.flatnonzero(recipe.sounding_parts(recipe.a_weighted(scene)))
        assert abs(sounding[0] - 500) <= 6 and abs(sounding[-1] - 1200) <= 6
        assert len(sounding) == sounding[-1] + 1 - sounding[0]
    for silent in (np.zeros(16_000), np.full(16_000, 1e-6), np.zeros(0)):
        assert not recipe.sounding_parts(silent).any()
    at_1000, at_100 = (recipe.a_weighted(np.sin(2 * np.pi * f * t)).std() * np.sqrt(2) for f in (1000, 100))
    assert 20 * np.log10(at_1000) == pytest.approx(0.0, abs=0.05)
    assert 20 * np.log10(at_100) == pytest.approx(-19.1, abs=0.1)  # IEC 61672-1, table 3


def test_events_have_the_stated_ratio_to_the_background(recipe, recordings):
    """What a scene is beyond its background, which its first draws make: its events."""
    library = recipe.Library(recordings)
    steady = {"low": library.of_folds([1, 2])["low"]}
    checked = 0
    for seed in range(6):
        samples, events = recipe.make_scene(recipe.Dice("test", seed), library, steady, 6000)
        noise = recipe.background(recipe.Dice("test", seed), 96_000)
        free = np.ones(96_000, bool)
        for event in events:
            free[(event.onset - 20) * 16 : (event.offset + 20) * 16] = False
        scale = (samples[free] @ noise[free]) / (noise[free] @ noise[free])
        quiet, heard = recipe.a_weighted(noise), recipe.a_weighted(samples / scale - noise)
        for event in events:
            loud = heard[(event.onset + 20) * 16 : (event.offset - 20) * 16]
            assert 6 <= event.snr <= 20
            assert 20 * np.log10(np.std(loud) / np.std(quiet)) == pytest.approx(event.snr, abs=0.2)
            checked += 1
    assert checked > 8


def test_parts_are_faded_where_they_are_cut(recipe, recordings):
    library = recipe.Library(recordings)
    sound = library.sound("3-0003-A-0.flac")
    part, before = recipe.faded_part(sound, 1000, 3000)
    assert before == 0 and len(part) == 2000 * 16  # cut out of the middle: faded within
    heard = recipe.a_weighted(part)[320:-320]
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(1.0, rel=0.01)
    assert abs(part[:16]).max() < 0.05 < abs(part[160:200]).max()
    twice = library.sound("3-1003-A-1.flac")
    first, last = twice.stretches[0]
    part, before = recipe.faded_part(twice, first, last)
    assert before == 10 and len(part) == (last - first + 20) * 16  # ends by itself: the quiet around it is faded


def test_splits_use_the_recordings_of_their_folds_only(scenes):
    folds = {"train": {"1", "2", "3"}, "valid": {"4"}, "test": {"5"}}
    used = defaultdict(set)
    for row in read(scenes / "origin" / "events.csv"):
        used[row["split"]].add(row["recording"].split("-")[0])
    assert {split: found <= folds[split] for split, found in used.items()} == dict.fromkeys(folds, True)
    assert len(used["train"]) > 1
    assert json.loads((scenes / "origin" / "scenes.json").read_text())["not_used"] == ["1-9-A-0.flac"]


def test_every_recording_that_was_used_is_credited(scenes):
    credited = {(row["split"], row["recording"]): row for row in read(scenes / "origin" / "attribution.csv")}
    events = read(scenes / "origin" / "events.csv")
    assert set(credited) == {(row["split"], row["recording"]) for row in events}
    for (split, name), row in credited.items():
        assert row["licence"] == "CC-BY" and row["author"] == f"author {name[0]}" and row["title"].startswith("title, ")
        assert int(row["scenes"]) == len(
            {e["filename"] for e in events if (e["split"], e["recording"]) == (split, name)}
        )
    table = [(e["onset"], e["offset"], e["event_label"]) for e in events if e["filename"] == "test-0002.flac"]
    rows = [row for row in read(scenes / "test.tsv", "\t") if row["filename"] == "test-0002.flac"]
    assert table == [(row["onset"], row["offset"], row["event_label"]) for row in rows]


def test_the_seed_decides_every_byte(recipe, recordings, scenes, tmp_path):
    assert recipe.main(arguments(recordings, tmp_path / "again", "--seed", "3")) == 0
    assert digests(tmp_path / "again") == digests(scenes)
    assert recipe.main(arguments(recordings, tmp_path / "other", "--seed", "4")) == 0
    changed = {name for name, digest in digests(tmp_path / "other").items() if digest != digests(scenes).get(name)}
    assert {f"audio/train/train-{number:04d}.flac" for number in range(1, 9)} <= changed


def test_a_scene_does_not_depend_on_how_many_there_are(recipe, recordings, scenes, tmp_path):
    more = arguments(recordings, tmp_path / "more", "--seed", "3")
    more[more.index("8")] = "9"
    assert recipe.main(more) == 0
    ours, theirs = digests(scenes), digests(tmp_path / "more")
    assert {name: theirs[name] for name in ours if name.startswith("audio/")} == {
        name: digest for name, digest in ours.items() if name.startswith("audio/")
    }


def test_without_attribution_the_sources_address_is_named(recipe, recordings, tmp_path):
    bare = tmp_path / "esc"
    (bare / "meta").mkdir(parents=True)
    (bare / "audio").symlink_to(recordings / "audio")
    (bare / "meta" / "esc50.csv").write_bytes((recordings / "meta" / "esc50.csv").read_bytes())
    (bare / "LICENSE").write_text("all of it: CC-BY-NC\n")
    assert recipe.main(arguments(bare, tmp_path / "scenes")) == 0
    assert (tmp_path / "scenes" / "origin" / "LICENSE-of-recordings").read_text() == "all of it: CC-BY-NC\n"
    rows = read(tmp_path / "scenes" / "origin" / "attribution.csv")
    assert all(row["url"] == f"https://freesound.org/s/{row['recording'].split('-')[1]}/" for row in rows)


def test_what_stands_is_replaced_only_on_demand_and_never_if_it_is_something_else(recipe, recordings, tmp_path, capsys):
    target = tmp_path / "scenes"
    target.mkdir()
    (target / "diary.txt").write_text("mine")
    for more in ([], ["--overwrite"]):
        assert recipe.main(arguments(recordings, target, *more)) == 2
        assert "holds something else" in capsys.readouterr().err
    assert digests(tmp_path).keys() == {"scenes/diary.txt"}
    (target / "diary.txt").unlink()
    assert recipe.main(arguments(recordings, target)) == 0  # an empty folder will do
    before = digests(target)
    capsys.readouterr()
    assert recipe.main(arguments(recordings, target, "--seed", "9")) == 2
    assert "Give --overwrite" in capsys.readouterr().err
    assert digests(target) == before
    assert recipe.main(arguments(recordings, target, "--seed", "9", "--overwrite")) == 0
    assert digests(target).keys() == before.keys() and digests(target) != before
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


def test_a_failure_leaves_what_stood_and_nothing_else(recipe, recordings, tmp_path, monkeypatch, capsys):
    target = tmp_path / "scenes"
    assert recipe.main(arguments(recordings, target)) == 0
    before = digests(target)
    whole = soundfile.write

    def full(path, *rest, **options):
        if path.name == "valid-0001.flac":
            raise OSError(28, "No space left on device")
        whole(path, *rest, **options)

    monkeypatch.setattr(recipe.soundfile, "write", full)
    assert recipe.main(arguments(recordings, target, "--seed", "2", "--overwrite")) == 1
    assert "disk full" in capsys.readouterr().err
    monkeypatch.setattr(recipe.soundfile, "write", whole)

    def refused(partial, final):
        raise recipe.UsageError("not now")

    monkeypatch.setattr(recipe, "publish_folder", refused)
    assert recipe.main(arguments(recordings, target, "--seed", "2", "--overwrite")) == 2
    assert digests(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


@pytest.mark.parametrize(
    ("more", "said", "code"),
    [
        (["--valid-folds", "3"], "fold 3 is given twice", 2),
        (["--valid-folds", "7"], "no recording is of fold 7", 2),
        (["--clips", "1", "0", "1"], "each split needs a scene", 2),
        (["--seconds", "0.5"], "1 to 600 s", 2),
        (["--from", "nowhere"], "no such folder", 3),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(recipe, recordings, tmp_path, capsys, more, said, code):
    assert recipe.main(arguments(recordings, tmp_path / "x", *more)) == code
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_recordings_that_would_leak_or_lack_are_refused(recipe, recordings, tmp_path, capsys):
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").symlink_to(recordings / "audio")
    table = tmp_path / "meta" / "esc50.csv"
    text = (recordings / "meta" / "esc50.csv").read_text()

    def said(changed):
        table.write_text(changed)
        assert recipe.main(arguments(tmp_path, tmp_path / "x")) == 3
        return capsys.readouterr().err

    assert "source 0001 is in folds 1 and 5" in said(text.replace(",0005,", ",0001,"))
    lines = text.splitlines()
    assert "ticks: no usable recording in folds [5]" in said(
        "\n".join(line for line in lines if not line.startswith("5-3005"))
    )
    assert "named in esc50.csv and not there" in said(text.replace("5-3005-A-3.flac", "5-3005-B-3.flac"))
    assert "a recording needs all three" in said(text.replace("5-3005-A-3.flac,5", "5-3005-A-3.flac,five"))
    assert not (tmp_path / "x").exists()
