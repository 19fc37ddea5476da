"""A run folder: one writer, no run lost by accident, no resume of another spec, and the way back to finished runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from c2ftool.engine import run_folder
from c2ftool.engine.run_folder import RunFolder, all_runs, find_run, machine, newest_finished, open_run
from c2ftool.errors import MissingError, RunError, UsageError
from c2ftool.spec.load import load_file
from c2ftool.spec.resolve import DataFacts, resolve, resolved_hash
from c2ftool.spec.resolved import Resolved

ROOT = Path(__file__).resolve().parents[2]
SPEC = """
c2f: 1
name: small
task: finetune
seed: 1
data: {dataset: demo}
frontend: {frames: 32, mels: 64}
model: {backbone: eat_tiny, head: {kind: clip}}
objective: {kind: classify, loss: bce}
train: {batch: 4}
phases: [{name: only, length: 20 steps}]
"""
FACTS = DataFacts(
    name="demo", classes=list("abcde"), sample_rate=16_000, multi_label=False, mean=-4.0, std=4.0, fingerprint="f00d",
    clips_train=40, clips_valid=8, clips_test=8,
)  # fmt: skip


@pytest.fixture
def resolved(tmp_path):
    """Makes a resolved spec from arguments."""

    def make(*arguments: str) -> Resolved:
        path = tmp_path / "small.yaml"
        path.write_text(SPEC)
        return resolve(load_file(path, list(arguments)).spec, FACTS)

    return make


@contextmanager
def opened(path: Path, spec: Resolved, resume: bool = False):
    with open_run(path, resume=resume, spec_text=SPEC, resolved=spec, info={"command": ["c2f"]}) as folder:
        yield folder


def finish(path: Path, spec: Resolved) -> None:
    with opened(path, spec, resume=True) as folder:
        folder.update(state="finished")


def test_a_new_folder_says_what_was_asked(tmp_path, resolved):
    spec = resolved()
    with opened(tmp_path / "runs" / "a", spec) as folder:
        record = folder.record
        assert (folder.path / "spec.yaml").read_text() == SPEC
        assert folder.checkpoints.is_dir()
    assert record["state"] == "running"
    assert record["spec_hash"] == resolved_hash(spec)
    assert record["data_fingerprint"] == "f00d"
    assert record["sessions"][0]["command"] == ["c2f"] and record["sessions"][0]["host"]
    assert run_folder.read_resolved(folder.path / "resolved.yaml") == spec


def test_a_run_is_not_overwritten_and_both_ways_on_are_named(tmp_path, resolved):
    with opened(tmp_path / "a", resolved()):
        pass
    before = (tmp_path / "a" / "run.json").read_bytes()
    with pytest.raises(UsageError, match="there is a run in") as fault, opened(tmp_path / "a", resolved()):
        pass
    assert "--resume" in str(fault.value) and "--run" in str(fault.value) and fault.value.exit_code == 2
    assert (tmp_path / "a" / "run.json").read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_left_alone(tmp_path, resolved, resume):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("\\begin")
    words = r"thesis\.tex" if resume else "is not empty"
    with pytest.raises(UsageError, match=words), opened(tmp_path / "a", resolved(), resume=resume):
        pass
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [".lock", "thesis.tex"]


def test_resume_starts_what_is_not_there_or_hardly_begun(tmp_path, resolved):
    with opened(tmp_path / "a", resolved(), resume=True) as folder:
        assert folder.record["state"] == "running"
    (tmp_path / "b" / "checkpoints").mkdir(parents=True)  # a process killed while it made the folder
    (tmp_path / "b" / ".run.json.host-1-0.partial").write_text("{")
    with opened(tmp_path / "b", resolved(), resume=True) as folder:
        assert len(folder.record["sessions"]) == 1


def test_each_resume_is_a_session(tmp_path, resolved):
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "a", resolved()) as folder:
        folder.mark_interrupted("by a signal", 12)
        raise KeyboardInterrupt
    marker = json.loads((tmp_path / "a" / "interrupted.json").read_text())
    assert (marker["step"], marker["exit_code"]) == (12, 75)
    assert folder.record["state"] == "interrupted"
    with opened(tmp_path / "a", resolved(), resume=True) as folder:
        assert not (tmp_path / "a" / "interrupted.json").exists()
        assert folder.record["state"] == "running"
        folder.update(state="finished")
    first, second = folder.record["sessions"]
    assert first["start"] <= first["end"] <= second["start"] <= second["end"] == folder.record["ended"]


def test_a_run_that_breaks_says_so(tmp_path, resolved):
    with pytest.raises(ZeroDivisionError), opened(tmp_path / "a", resolved()):
        _ = 1 / 0
    assert RunFolder(tmp_path / "a").record["state"] == "failed"


def test_another_spec_is_refused_with_what_differs(tmp_path, resolved):
    with opened(tmp_path / "a", resolved()):
        pass
    other = resolved("seed=2", "train.batch=8", "tracking.every=3")
    with pytest.raises(UsageError) as fault, opened(tmp_path / "a", other, resume=True):
        pass
    text = str(fault.value)
    assert "seed: 1 there, 2 now" in text and "phases.0.batch: 4 there, 8 now" in text
    assert "tracking" not in text, "that may change"
    assert fault.value.exit_code == 2


def test_a_long_list_of_differences_is_cut(tmp_path, resolved):
    with opened(tmp_path / "a", resolved()):
        pass
    spec = resolved()
    other = spec.model_copy(update={"phases": [], "classes": list("fghij"), "seed": 3, "precision": "fp64"})
    data = {f"k{i}": i for i in range(30)}
    assert len(run_folder._differences(data, {})) == 30
    with pytest.raises(UsageError) as fault, opened(tmp_path / "a", other, resume=True):
        pass
    keys = [line.split(":")[0].strip() for line in str(fault.value).splitlines()[1:-1]]
    assert keys == ["seed", *(f"classes.{i}" for i in range(5)), "phases", "precision"]


def test_what_may_differ_is_what_the_hash_leaves_out(resolved):
    arguments = ["name=other", "about=x", "tracking.every=3", "checkpoints.keep=5", "workers=3"]
    spec, other = resolved(), resolved(*arguments[:-1])
    other = other.model_copy(update={"workers": 3, "micro_batch": 2})
    assert resolved_hash(spec) == resolved_hash(other)
    assert run_folder._differences(run_folder.as_data(spec), run_folder.as_data(other)) == []


HOLD = """
import sys, time
from pathlib import Path
from c2ftool.files import lock
with lock(Path(sys.argv[1]) / ".lock"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_kept_out_until_the_first_is_gone(tmp_path, resolved):
    with opened(tmp_path / "a", resolved()):
        pass
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        words = rf"in use by process {holder.pid} on "
        with pytest.raises(UsageError, match=words) as fault, opened(tmp_path / "a", resolved(), resume=True):
            pass
        assert fault.value.exit_code == 2
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with opened(tmp_path / "a", resolved(), resume=True) as folder:
        assert len(folder.record["sessions"]) == 2


def test_an_output_folder_that_cannot_be_made_is_one_message(tmp_path, resolved):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written") as fault, opened(tmp_path / "file" / "a", resolved()):
        pass
    assert str(tmp_path / "file" / "a") in str(fault.value)


def test_the_newest_finished_run_is_the_one_that_ended_last(tmp_path, resolved):
    with pytest.raises(MissingError, match="no finished run"):
        newest_finished(tmp_path / "runs")
    spec = resolved()
    for name in ("first", "second", "third"):
        finish(tmp_path / "runs" / name, spec)
    with opened(tmp_path / "runs" / "open", spec):
        pass
    os.utime(tmp_path / "runs" / "first" / "run.json")  # copied, touched: no matter
    assert newest_finished(tmp_path / "runs").name == "third"
    finish(tmp_path / "runs" / "second", spec)
    assert newest_finished(tmp_path / "runs").name == "second"
    (tmp_path / "runs" / "third" / "run.json").write_text("{")
    assert {p.name for p in all_runs(tmp_path / "runs")} == {"first", "second", "third", "open"}


def test_a_finished_study_counts_as_one(tmp_path, resolved):
    finish(tmp_path / "single", resolved())
    for fold in ("fold-1", "fold-2"):
        finish(tmp_path / "study" / fold, resolved())
    assert newest_finished(tmp_path) == tmp_path / "study" / "fold-2"
    (tmp_path / "study" / "study.json").write_text("{}")
    assert newest_finished(tmp_path) == tmp_path / "study"
    assert find_run("study", tmp_path) == tmp_path / "study"
    assert find_run("study/fold-1", tmp_path) == tmp_path / "study" / "fold-1"


def test_a_run_is_found_by_name_or_path(tmp_path, resolved):
    finish(tmp_path / "runs" / "a", resolved())
    assert find_run("a", tmp_path / "runs") == tmp_path / "runs" / "a"
    assert find_run(str(tmp_path / "runs" / "a"), tmp_path / "elsewhere") == tmp_path / "runs" / "a"
    with pytest.raises(MissingError, match="no run 'b'") as fault:
        find_run("b", tmp_path / "runs")
    assert "There are: a." in str(fault.value) and fault.value.exit_code == 3


def test_the_commit_of_a_checkout_is_known(tmp_path):
    assert run_folder._commit(tmp_path) is None
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    who = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, env=environment)
    commit = run_folder._commit(tmp_path)
    assert commit is not None and len(commit) == 40
    assert {"python", "torch", "pid"} <= set(machine())
