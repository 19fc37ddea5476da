"""metrics.jsonl is whole after a kill and reads, after a resume, like that of an unbroken run."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2ftool.engine.metrics_log import MetricsLog, curves, parse_line, read_metrics
from c2ftool.errors import RunError


def written(path: Path, steps: int) -> list[dict]:
    log = MetricsLog(path)
    for step in range(1, steps + 1):
        log.write("train", step, "only", {"loss": 1 / step, "lr": 1e-3})
        if step % 2 == 0:
            log.write("evaluate", step, "only", {"accuracy": step / 10})
    log.close()
    return read_metrics(path)


def test_a_line_is_on_file_at_once(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    entry = log.write("train", 7, "fine", {"loss": 0.5})
    assert read_metrics(log.path) == [entry]
    assert entry | {"time": 0} == {"time": 0, "step": 7, "phase": "fine", "kind": "train", "values": {"loss": 0.5}}
    assert entry["time"] > 1_700_000_000_000, "milliseconds"
    log.sync()
    log.close()


@given(st.dictionaries(st.text(max_size=8), st.floats(), max_size=5))
def test_any_value_survives_and_the_file_is_strict_json(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    log = MetricsLog(path)
    log.write("train", 1, "only", values)
    log.close()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    (entry,) = read_metrics(path)
    assert list(entry["values"]) == list(values)
    for name, value in values.items():
        assert entry["values"][name] == value or (math.isnan(value) and math.isnan(entry["values"][name]))


def test_values_that_are_not_finite_are_words(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write("train", 1, "only", {"a": math.nan, "b": math.inf, "c": -math.inf})
    log.close()
    assert '"values": {"a": "nan", "b": "inf", "c": "-inf"}' in log.path.read_text()


def test_a_resume_keeps_what_the_checkpoint_knows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    entries = written(path, 9)
    MetricsLog(path, keep_to=6).close()
    assert read_metrics(path) == [e for e in entries if e["step"] <= 6]


def test_after_a_kill_and_a_resume_the_file_reads_as_if_unbroken(tmp_path):
    unbroken = written(tmp_path / "unbroken.jsonl", 9)
    path = tmp_path / "metrics.jsonl"
    written(path, 9)
    path.write_bytes(path.read_bytes()[:-17])  # killed in the middle of a line
    log = MetricsLog(path, keep_to=4)
    for entry in unbroken:
        if entry["step"] > 4:
            log.write(entry["kind"], entry["step"], entry["phase"], entry["values"])
    log.close()
    assert [e | {"time": 0} for e in read_metrics(path)] == [e | {"time": 0} for e in unbroken]


def test_the_score_of_the_test_clips_is_written_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write("train", 5, "only", {"loss": 1.0})
    log.write("test", 5, "only", {"accuracy": 0.5})
    log.close()
    MetricsLog(path, keep_to=5).close()
    assert [e["kind"] for e in read_metrics(path)] == ["train"]


def test_without_a_checkpoint_a_run_begins_with_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, 3)
    MetricsLog(path).close()
    assert path.read_text() == ""


def test_cut_anywhere_the_whole_lines_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    entries = written(path, 3)
    text = path.read_bytes()
    for end in range(len(text)):
        path.write_bytes(text[:end])
        found = read_metrics(path)
        assert found == entries[: len(found)]
        assert len(found) - text[:end].count(b"\n") in (0, 1), "at most the line that only misses its end"
    with pytest.raises(ValueError):
        parse_line(text[:20])


def test_curves_are_steps_and_values(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write("train", 1, "a", {"loss": 3.0, "lr": 0.1})
    log.write("train", 2, "a", {"loss": math.nan, "lr": 0.1})
    log.write("evaluate", 2, "a", {"accuracy": 0.5})
    log.write("phase", 2, "a", {"seconds": 9.0})
    log.write("train", 3, "b", {"loss": 2.0, "lr": 0.2})
    log.close()
    assert curves(read_metrics(path)) == {
        "loss": [(1, 3.0), (3, 2.0)],
        "lr": [(1, 0.1), (2, 0.1), (3, 0.2)],
        "valid/accuracy": [(2, 0.5)],
    }


def test_a_file_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        MetricsLog(tmp_path / "file" / "metrics.jsonl")
    assert read_metrics(tmp_path / "none.jsonl") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_message_from_the_metrics(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log._file.close()
    log._file = Path("/dev/full").open("w")  # noqa: SIM115
    with pytest.raises(RunError, match="disk full"):
        log.write("train", 1, "only", {"loss": 1.0})
    with contextlib.suppress(OSError):
        log.close()
