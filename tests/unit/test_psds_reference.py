"""Detections at operating points, against values that psds_eval asserts in its own tests or computed."""

import csv
import gzip
import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from c2ftool.metrics.psds import PsdsSettings
from c2ftool.metrics.psds_changes import Criteria
from c2ftool.metrics.psds_curve import Curve
from c2ftool.metrics.psds_detections import Detections, count, intersection_f1, psds_of_detections, rates
from c2ftool.metrics.tables import Truth

REFERENCE = Path(__file__).resolve().parents[1] / "fixtures" / "psds_reference"
CASES = json.loads((REFERENCE / "cases.json").read_text())


@cache
def read_table(name):
    """Rows of a table as dicts."""
    data = (REFERENCE / name).read_bytes()
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def rows_of(what):
    """(file, onset, offset, class) of a table's name or of rows; rows without a class are left out."""
    if isinstance(what, str):
        what = [(r["filename"], r["onset"], r["offset"], r["event_label"]) for r in read_table(what)]
    return [(file, float(on), float(off), label) for file, on, off, label in what if label not in (None, "", "nan")]


def read_truth(case):
    durations = case["durations"]
    if isinstance(durations, str):
        table = read_table(durations)
        durations = {row["filename"]: float(row["duration"]) for row in table}
    else:
        durations = dict(zip(durations["filename"], durations["duration"], strict=True))
    events = rows_of(case["ground_truth"])
    # files that the table of durations does not know have none: no false positive counts in them
    ids = tuple(sorted(durations.keys() | {row[0] for row in events}))
    classes = tuple(sorted(set(case.get("class_names_given", [])) | {row[3] for row in events}))
    return Truth(
        ids, classes, np.array([durations.get(name, 0.0) for name in ids]),
        np.array([ids.index(row[0]) for row in events], np.int64),
        np.array([classes.index(row[3]) for row in events], np.int64),
        np.array([row[1] for row in events], float), np.array([row[2] for row in events], float),
    )  # fmt: skip


def as_detections(rows, truth):
    clips = {name: number for number, name in enumerate(truth.ids)}
    labels = {name: number for number, name in enumerate(truth.classes)}
    return Detections(
        np.array([clips.get(row[0], -1) for row in rows], np.int64),
        np.array([labels.get(row[3], -1) for row in rows], np.int64),
        np.array([row[1] for row in rows], float), np.array([row[2] for row in rows], float),
    )  # fmt: skip


def read_points(points, truth):
    """The operating points: tables, parts of tables, or tables of several thresholds."""
    for point in points:
        rows = rows_of(point["file"] if "file" in point else point["rows"])
        if "by" in point:
            threshold = [row[point["by"]] for row in read_table(point["file"])]
            assert len(threshold) == len(rows)
            for value in dict.fromkeys(threshold):
                yield as_detections([row for row, t in zip(rows, threshold, strict=True) if t == value], truth)
        elif "rows_of" in point:
            with gzip.open(REFERENCE / point["rows_of"], "rt") as file:
                chosen = json.load(file)[point["sample"]]
            yield as_detections([rows[number] for number in chosen], truth)
        else:
            yield as_detections(rows, truth)


@cache
def points_of(points, ids, classes):
    """The operating points, as JSON, of a truth with such clips and classes."""
    none, nothing = np.zeros(0, np.int64), np.zeros(0)
    return tuple(read_points(json.loads(points), Truth(ids, classes, nothing, none, none, nothing, nothing)))


def settings_of(case):
    given = dict(case["parameters"])
    if given["alpha_ct"] == 0:
        given["cttc"] = None
    return PsdsSettings(**given)


@pytest.mark.parametrize("case", CASES["psds_cases"], ids=lambda case: case["name"])
def test_psds_of_detections_is_psds_evals(case):
    truth = read_truth(case)
    assert list(truth.classes) == case["class_names"]
    points = points_of(json.dumps(case["operating_points"]), truth.ids, truth.classes)
    old = psds_of_detections(points, truth, settings_of(case), own_class="counted as 0").value
    assert old == pytest.approx(case["psds"]["psds_eval_0.3.0"], abs=1e-9)
    assert old == pytest.approx(case.get("asserted", old), abs=1e-9)
    assert round(old, 3) == case.get("printed", round(old, 3))
    expected = case["psds"]["psds_eval_0.5.3"]
    if case["parameters"]["alpha_ct"] == 0:  # then the versions differ in nothing but what they refuse
        assert expected in (pytest.approx(old, abs=1e-9), None)
    elif expected is not None:
        assert psds_of_detections(points, truth, settings_of(case)).value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("case", [c for c in CASES["psds_cases"] if "counts" in c], ids=lambda case: case["name"])
def test_counts_and_rates_are_psds_evals(case):
    truth = read_truth(case)
    (point,) = read_points(case["operating_points"], truth)
    p = case["parameters"]
    counts = count(point, truth, Criteria(p["dtc"], p["gtc"], p["cttc"]))
    expected = np.array(case["counts"])[:-1]  # the last row is of the whole clips, which are not detected
    np.testing.assert_array_equal(counts.crossed + np.diag(counts.found), expected[:, :-1])
    np.testing.assert_array_equal(counts.false, expected[:, -1])
    ours = rates(counts, truth)
    np.testing.assert_allclose(ours.tpr, case["tpr"], rtol=1e-12)
    np.testing.assert_allclose(ours.fpr, case["fpr_per_hour"], rtol=1e-12)
    np.testing.assert_allclose(ours.ctr, np.nan_to_num(case["ctr_per_hour"]), rtol=1e-12)


@pytest.mark.parametrize("case", CASES["fscore_cases"], ids=lambda case: case["name"])
def test_intersection_f1_is_psds_evals(case):
    truth = read_truth(case)
    detections = as_detections(rows_of(case["detections"]), truth)
    result = intersection_f1(detections, truth, case["parameters"]["dtc"], case["parameters"]["gtc"])
    assert result.macro == pytest.approx(case["macro_f"], abs=1e-9)
    for name, value in zip(truth.classes, result.per_class, strict=True):
        assert value == pytest.approx(case["per_class_f"][name], abs=1e-9)


@pytest.mark.parametrize("case", CASES["step_area_cases"])
def test_areas_of_staircases_are_psds_evals(case):
    until = case.get("max_x", case["x"][-1])
    assert Curve(np.array(case["x"], float), np.array(case["y"])).area(until) * until == pytest.approx(case["area"])
