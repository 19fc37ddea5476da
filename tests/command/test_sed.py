"""Sound event detection by the real command: teachers, their logits, students, scores of runs and of files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from c2ftool.engine.metrics_log import read_metrics

ROOT = Path(__file__).parents[2]
SPEC = str(ROOT / "tests/specs/detect.yaml")
STUDENT = ("task=distill", "data.sampler={kind: uniform}", "model.head.recurrent=null")
TEACHERS = 'teachers=[{kind: ensemble, members: ["run:teacher-*"]}]'


@pytest.fixture(scope="module")
def place(c2f, data_root, tmp_path_factory):
    """Roots with two trained teachers of different backbones; the variables that name them."""
    runs, data = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("data")
    for name in ("scenes", "sounds"):
        (data / name).symlink_to(data_root / name)
    env = {"C2F_DATA": str(data), "C2F_RUNS": str(runs)}
    for backbone, more in (("atst_micro", []), ("beats_micro", ["model.head.sequence=time", "frontend.frames=298"])):
        done = c2f("finetune", SPEC, f"model.backbone={backbone}", *more, "--run", f"teacher-{backbone}", env=env)
        assert done.returncode == 0, done.stderr
        assert "test psds1" in done.stdout
    return runs, data, env


@pytest.fixture(scope="module")
def student(c2f, place):
    _runs, _data, env = place
    done = c2f("distill", SPEC, *STUDENT, TEACHERS, "--run", "student", env=env)
    assert done.returncode == 0, done.stderr
    return done


def losses(run: Path) -> list[float]:
    return [e["values"]["loss"] for e in read_metrics(run / "metrics.jsonl") if e["kind"] == "train"]


def test_a_report_holds_scores_events_and_pictures(place):
    runs, _, _ = place
    report = runs / "teacher-atst_micro" / "report"
    names = {path.name for path in report.iterdir()}
    assert {"scores.hdf5", "truth.tsv", "durations.tsv", "detections.tsv", "psd_roc.png", "timeline-1.png"} <= names
    page = (report / "index.html").read_text()
    assert "psd_roc.png" in page and "median filter of 5 frames" in page and "PSDS1 over all thresholds" in page
    with h5py.File(report / "scores.hdf5") as file:
        assert file["scores"].shape == (12, 10, 75)


def test_logits_are_the_mean_of_the_teachers_in_the_published_layout(place, student):
    _runs, data, _ = place
    (stored,) = (data / "logits").glob("scenes-*.hdf5")
    with h5py.File(stored) as file:
        names = [name.decode() for name in file["filenames"]]
        logits = file["strong_logits"]
        assert logits.shape == (24, 10, 75) and logits.dtype == np.float16
        assert sorted(names) == [f"scenes_train-{n:04d}" for n in range(24)]
        assert np.isfinite(logits[:]).all() and len(np.unique(logits[:])) > 100
    assert "logits of 24 of 24 clips stored" in student.stderr


def test_a_second_student_reads_what_is_stored_and_learns_the_same(c2f, place, student):
    runs, _data, env = place
    done = c2f("distill", SPEC, *STUDENT, TEACHERS, "--run", "again", env=env)
    assert done.returncode == 0 and "stored" not in re.sub(r"logits of 24 clips in .*", "", done.stderr)
    assert losses(runs / "again") == losses(runs / "student")
    alone = c2f(
        "finetune", SPEC, "data.sampler={kind: uniform}", "model.head.recurrent=null", "--run", "alone", env=env
    )
    assert alone.returncode == 0 and losses(runs / "alone") != losses(runs / "student")


def test_a_file_of_others_teaches_and_must_have_every_clip(c2f, place, student, tmp_path):
    runs, data, env = place
    (stored,) = (data / "logits").glob("scenes-*.hdf5")
    theirs = tmp_path / "theirs.hdf5"
    with h5py.File(stored) as ours, h5py.File(theirs, "w") as file:  # published: no names of classes, chunks
        file["filenames"] = np.array([f"{name.decode()}.mp3" for name in ours["filenames"][:20]], "S")
        file.create_dataset("strong_logits", data=ours["strong_logits"][:20], chunks=(1, 10, 75), compression="gzip")
    logits = f"teachers=[{{kind: ensemble, logits: {theirs}}}]"
    done = c2f("distill", SPEC, *STUDENT, logits, "--run", "theirs", env=env)
    assert done.returncode == 3 and "4 of 24 training clips have no logits, as scenes_train-" in done.stderr
    assert "missing=labels" in done.stderr and not (runs / "theirs").exists()
    by_labels = f"teachers=[{{kind: ensemble, logits: {theirs}, missing: labels}}]"
    done = c2f("distill", SPEC, *STUDENT, by_labels, "--run", "theirs", env=env)
    assert done.returncode == 0 and "learned by their labels alone" in done.stderr
    assert "does not name its 10 classes" in done.stderr


@pytest.mark.parametrize(
    ("teachers", "code", "message"),
    [
        ('teachers=[{kind: ensemble, members: ["run:nobody-*"]}]', 3, "no run 'nobody-*'"),
        ('teachers=[{kind: ensemble, members: ["teacher"]}]', 2, "'teacher' names no run"),
        ("teachers=[{kind: ensemble}]", 2, "an ensemble is of `members` or of stored `logits`"),
        ("teachers=[{kind: ensemble, logits: nowhere.hdf5}]", 3, "no such logits file"),
        ("teachers=[{kind: ema}]", 2, "objective detect has no teacher of kind ema"),
    ],
)
def test_teachers_that_are_not_there_end_in_one_message(c2f, place, teachers, code, message):
    runs, _, env = place
    done = c2f("distill", SPEC, *STUDENT, teachers, "--run", "none", env=env)
    assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr
    assert not (runs / "none").exists()


def test_teachers_of_other_frames_are_refused(c2f, place):
    _runs, _, env = place
    done = c2f("distill", SPEC, *STUDENT, TEACHERS, "frontend.frames=201", "--run", "short", env=env)
    assert done.returncode == 2 and "scores 75 frames of 40 ms, and the student 50 frames of 40 ms" in done.stderr


def test_an_ensemble_is_scored_beside_its_members(c2f, place):
    _, _, env = place
    done = c2f("evaluate", "teacher-*", "--ensemble", "--metric", "psds1", "--metric", "pauroc", "--json", env=env)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == ["teacher-atst_micro", "teacher-beats_micro", "ensemble of 2"]
    assert all({"psds1", "pauroc"} == set(row["scores"]) for row in rows)


def test_files_are_scored_as_the_run_was(c2f, place, tmp_path):
    runs, _, env = place
    report = runs / "teacher-atst_micro" / "report"
    done = c2f("evaluate", "teacher-atst_micro", "--save-scores", str(tmp_path / "tables"), "--json", env=env)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)[0]["scores"]
    assert len(list((tmp_path / "tables").glob("*.tsv"))) == 12
    truth = ("--truth", str(report / "truth.tsv"), "--durations", str(report / "durations.tsv"))
    for path in (tmp_path / "tables", report / "scores.hdf5"):
        line = ("evaluate", "--scores", str(path), *truth, "--metric", "psds1", "--metric", "event_f1", "--json")
        done = c2f(*line, "postprocess.median=0.2 s", "--expect", f"psds1>={scores['psds1'] - 1e-9}", env=env)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["scores"] == pytest.approx(scores, abs=1e-12)
    found = c2f("evaluate", "--detections", str(report / "detections.tsv"), *truth, "--metric", "event_f1", "--json")
    assert json.loads(found.stdout)["scores"]["event_f1"] == pytest.approx(scores["event_f1"], abs=1e-12)


def test_scores_without_truth_or_with_runs_are_refused(c2f, place):
    runs, _, env = place
    report = runs / "teacher-atst_micro" / "report"
    scores = ("--scores", str(report / "scores.hdf5"))
    for more, message in (
        ((), "--truth is missing"),
        (("--truth", str(report / "truth.tsv")), "--durations is missing"),
        (("teacher-atst_micro",), "in place of runs"),
    ):
        done = c2f("evaluate", *scores, *more, env=env)
        assert done.returncode == 2 and message in done.stderr


def test_a_plan_names_frames_and_teachers(c2f, place):
    _, _, env = place
    done = c2f("distill", SPEC, *STUDENT, TEACHERS, "--dry-run", env=env)
    assert done.returncode == 0, done.stderr
    assert "labels: 75 frames of 40 ms" in done.stdout and "run:teacher-*, weight 0.9" in done.stdout
