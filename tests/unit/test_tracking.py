"""MLflow mirrors metrics.jsonl; it never stops or slows a run, and what it missed is sent by the next start."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2ftool.engine.metrics_log import MetricsLog
from c2ftool.engine.mlflow_sink import Mirror, finite, points, slug
from c2ftool.engine.tracking import Tracker, store_uri, without_password
from c2ftool.spec.running import Tracking

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory) -> Path:
    """An MLflow database with its tables: making them takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


class Run:
    """A run folder as the engine uses it."""

    def __init__(self, root: Path, store: Path | None = None, **settings: Any) -> None:
        self.root, self.folder = root, root / "runs" / "a"
        self.folder.mkdir(parents=True, exist_ok=True)
        if store is not None:
            shutil.copy(store, root / "runs" / "mlflow.db")
        self.settings = Tracking(**settings)
        self.warnings: list[str] = []

    def tracker(self, **more: Any) -> Tracker:
        return Tracker(
            settings=self.settings, folder=self.folder, runs_root=self.root / "runs", name="a",
            params={"train.batch": 8, "phases.fine (x).lr": 0.1}, tags={"c2f.command": "c2f pretrain x"},
            warn=self.warnings.append, **more,
        )  # fmt: skip

    def log(self, first: int, last: int, keep_to: int | None = None) -> MetricsLog:
        log = MetricsLog(self.folder / "metrics.jsonl", keep_to=keep_to)
        for step in range(first, last + 1):
            log.write("train", step, "fine", {"loss": 1 / step})
        return log

    def stored(self) -> tuple[Any, dict[str, Any]]:
        """(client, name -> run)"""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.root}/runs/mlflow.db")
        experiment = client.get_experiment_by_name("c2ftool")
        return client, {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}

    def losses(self) -> dict[int, float]:
        """Step -> value of the loss in the store; no step is there twice."""
        client, runs = self.stored()
        history = client.get_metric_history(runs["a"].info.run_id, "loss")
        assert len({m.step for m in history}) == len(history)
        return {m.step: m.value for m in history}


def wait_for(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_a_run_arrives_whole_and_goes_on_after_a_resume(tmp_path, empty_store):
    run = Run(tmp_path, empty_store)
    log = run.log(1, 1500)
    tracker = run.tracker().start()
    tracker.phase("fine", {"lr": 0.1})
    log.write("evaluate", 1500, "fine", {"map": 0.25, "d_prime": math.inf})
    (run.folder / "resolved.yaml").write_text("x: 1\n")
    tracker.artifacts([run.folder / "resolved.yaml", run.folder / "is_gone.png"])
    tracker.finish("KILLED")
    assert run.losses() == {step: 1 / step for step in range(1, 1501)}
    client, runs = run.stored()
    parent, child = runs["a"], runs["fine"]
    assert (parent.info.status, child.info.status) == ("KILLED", "KILLED")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id and child.data.params == {"lr": "0.1"}
    assert parent.data.params[slug("phases.fine (x).lr")] == "0.1" and parent.data.params["train.batch"] == "8"
    assert parent.data.metrics["valid/map"] == 0.25 and parent.data.metrics["valid/d_prime/infinite"] == 1
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["resolved.yaml"]
    assert Path(parent.info.artifact_uri.removeprefix("file://")).is_relative_to(tmp_path / "runs" / "mlartifacts")

    log.close()
    log = run.log(1401, 1600, keep_to=1400)  # the checkpoint was at step 1400
    tracker = run.tracker().start()
    tracker.phase("fine", {"lr": 0.1})
    tracker.phase_summary("fine", {"seconds": 12.5})
    tracker.finish("FINISHED")
    log.close()
    assert run.losses() == {step: 1 / step for step in range(1, 1601)}
    client, runs = run.stored()
    assert len(runs) == 2, "the same runs"
    assert (runs["a"].info.status, runs["fine"].info.status) == ("FINISHED", "FINISHED")
    assert runs["fine"].data.metrics["seconds"] == 12.5
    assert runs["a"].data.tags["c2f.resume.1.command"] == "c2f pretrain x"
    assert run.warnings == []


TRAIN = """
import sys, time
from pathlib import Path
from c2ftool.engine.metrics_log import MetricsLog
from c2ftool.engine.tracking import Tracker
from c2ftool.spec.running import Tracking
folder = Path(sys.argv[1])
log = MetricsLog(folder / "metrics.jsonl")
tracker = Tracker(Tracking(), folder, folder.parent, "a", {}, {}, print).start()
tracker.phase("fine", {})
for step in range(1, 100_000):
    log.write("train", step, "fine", {"loss": 1 / step})
    time.sleep(0.002)
"""


def test_a_killed_run_loses_nothing(tmp_path, empty_store):
    run = Run(tmp_path, empty_store)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    training = subprocess.Popen([sys.executable, "-c", TRAIN, str(run.folder)], env=environment)
    try:
        wait_for((run.folder / "tracking.json").exists)
        time.sleep(0.5)
    finally:
        training.send_signal(signal.SIGKILL)
        training.wait()
    last = json.loads((run.folder / "metrics.jsonl").read_bytes().split(b"\n")[-2])["step"]
    assert last > 100
    with (run.folder / "tracking.jsonl").open("a") as file:
        file.write('{"phase": "fi')  # killed in the middle of a line
    log = run.log(last + 1, last + 5, keep_to=last)
    tracker = run.tracker().start()
    tracker.phase_summary("fine", {"seconds": 1.0})
    tracker.finish("FINISHED")
    log.close()
    assert run.losses() == {step: 1 / step for step in range(1, last + 6)}
    assert {name: r.info.status for name, r in run.stored()[1].items()} == {"a": "FINISHED", "fine": "FINISHED"}
    assert run.warnings == []


def test_the_sink_ends_when_training_is_killed(tmp_path, empty_store):
    run = Run(tmp_path, empty_store)
    training = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(run.folder)], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        wait_for((run.folder / "tracking.json").exists)
        (sink,) = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
    finally:
        training.send_signal(signal.SIGKILL)
        training.wait()
    wait_for(lambda: not Path(f"/proc/{sink}").exists() or "Z" in Path(f"/proc/{sink}/stat").read_text().split()[2:3])
    assert run.stored()[1]["a"].info.status == "KILLED"


def slowest_write(run: Run) -> float:
    """The longest that a step's report took, in seconds, while the tracker tries to send it."""
    log, slowest = run.log(1, 1), 0.0
    end = time.monotonic() + 1.0
    step = 1
    while time.monotonic() < end:
        started = time.monotonic()
        log.write("train", (step := step + 1), "fine", {"loss": 1.0})
        slowest = max(slowest, time.monotonic() - started)
        time.sleep(0.001)
    log.close()
    return slowest


def test_a_server_that_is_not_there_warns_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        run = Run(tmp_path, uri=f"http://me:secret@127.0.0.1:{unused.getsockname()[1]}")
        tracker = run.tracker().start()
        tracker.phase("fine", {})
        assert slowest_write(run) < 0.2
        wait_for(lambda: bool(run.warnings))
        started = time.monotonic()
        tracker.finish("FINISHED")
        assert time.monotonic() - started < 6
    (warning,) = run.warnings
    assert warning.startswith("tracking: http://127.0.0.1:") and "training goes on" in warning
    assert "secret" not in warning + (run.folder / "tracking.jsonl").read_text() + tracker.uri


def test_a_server_that_hangs_costs_the_end_of_a_run_a_limited_time(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        run = Run(tmp_path, uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        tracker = run.tracker(patience=2.0).start()
        silent.settimeout(30)
        asking, _ = silent.accept()  # the sink is asking, and will not be answered
        with asking:
            started = time.monotonic()
            tracker.finish("FINISHED")
            assert time.monotonic() - started < 4
            tracker.finish("FINISHED")
    (warning,) = run.warnings
    assert "--resume" in warning


def test_a_sink_that_dies_is_said_and_ends_nothing(tmp_path):
    run = Run(tmp_path)
    tracker = run.tracker().start()
    assert tracker._process is not None
    tracker._process.kill()
    wait_for(lambda: bool(run.warnings))
    tracker.phase("fine", {})
    tracker.finish("FINISHED")
    assert len(run.warnings) == 1 and "has stopped" in run.warnings[0]


def test_a_folder_that_cannot_be_written_warns_only(tmp_path):
    run = Run(tmp_path)
    shutil.rmtree(run.folder)
    run.folder.write_text("a file")
    tracker = run.tracker().start()
    tracker.phase("fine", {})
    tracker.artifacts([tmp_path / "x"])
    tracker.finish("FAILED")
    assert len(run.warnings) == 1


def test_none_does_nothing(tmp_path):
    run = Run(tmp_path, kind="none")
    tracker = run.tracker().start()
    tracker.phase("fine", {})
    tracker.phase_summary("fine", {"seconds": 1.0})
    tracker.artifacts([run.folder / "x"])
    tracker.finish("FINISHED")
    assert list(run.folder.iterdir()) == [] and [p.name for p in (tmp_path / "runs").iterdir()] == ["a"]


def test_where_runs_are_tracked(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri(Tracking(), tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://lab:5000")
    assert store_uri(Tracking(), tmp_path) == "http://lab:5000"
    assert store_uri(Tracking(uri="http://mine"), tmp_path) == "http://mine"
    assert without_password("see https://u:p%40@lab:5000/x and sqlite:////a@b/c") == (
        "see https://lab:5000/x and sqlite:////a@b/c"
    )


# --- the sink's parts, without a process -------------------------------------------------------------------------


class Client:
    """Stands for MLflow's client: takes what it is given, and fails as told."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.made: list[str] = []
        self.artifacts: list[str] = []
        self.fails: Iterator[bool] = iter(())

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        if next(self.fails, False):
            raise OSError("no answer")
        if metrics:
            self.batches.append([(m.key, m.value, m.timestamp, m.step) for m in metrics])

    def search_runs(self, experiments: list[str], filter_string: str, max_results: int) -> list[Any]:
        return []

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> Any:
        self.made.append(run_name)
        return type("Made", (), {"info": type("Info", (), {"run_id": f"id-{run_name}"})})

    def update_run(self, run: str, status: str) -> None: ...

    def set_terminated(self, run: str, status: str) -> None: ...

    def log_artifact(self, run: str, path: str) -> None:
        if next(self.fails, False):
            raise OSError("no room")
        self.artifacts.append(Path(path).name)


@pytest.fixture
def mirrored(tmp_path):
    """(run, client, mirror) of a run folder with nothing in it yet."""
    run = Run(tmp_path)
    run.tracker()._begin()
    client = Client()
    mirror = Mirror(run.folder, client, "here", "0")
    yield run, client, mirror
    if mirror._metrics is not None:
        mirror._metrics.close()


def test_batches_are_within_the_limit_and_in_order(mirrored):
    run, client, mirror = mirrored
    log = MetricsLog(run.folder / "metrics.jsonl")
    for step in range(1, 8):
        log.write("evaluate", step, "fine", {f"class {k}": k * step for k in range(527)})
    log.close()
    mirror.send()
    assert all(len(batch) <= 1000 for batch in client.batches)
    assert [p[3] for batch in client.batches for p in batch] == [s for s in range(1, 8) for _ in range(527)]
    mirror.send()
    assert sum(map(len, client.batches)) == 7 * 527, "nothing is sent twice"


def test_what_failed_is_sent_again(mirrored):
    run, client, mirror = mirrored
    run.log(1, 2500).close()
    client.fails = iter([False, True])
    with pytest.raises(OSError, match="no answer"):
        mirror.send()
    mirror.send()
    assert {p[3] for batch in client.batches for p in batch} == set(range(1, 2501))
    times = {p[3]: {q[2] for batch in client.batches for q in batch if q[3] == p[3]} for p in client.batches[0]}
    assert all(len(t) == 1 for t in times.values()), "sent again with the time of the first: one row"


def test_a_file_that_cannot_be_stored_holds_up_nothing(mirrored):
    run, client, mirror = mirrored
    tracker = run.tracker()
    for name in ("one.png", "two.png"):
        (run.folder / name).write_text("")
        tracker.artifacts([run.folder / name])
    tracker.phase("fine", {})
    client.fails = iter([True])
    with pytest.raises(OSError, match="no room"):
        mirror.send()
    assert client.artifacts == ["two.png"] and client.made == ["a", "fine"]
    mirror.send()
    assert client.artifacts == ["two.png", "one.png"] and client.made == ["a", "fine"]


def test_a_folder_made_anew_does_not_go_on_with_the_old_run(mirrored):
    run, client, _ = mirrored
    cursor = (run.folder / "tracking.json").read_bytes()
    (run.folder / "tracking.jsonl").unlink()
    run.tracker()._begin()
    assert (run.folder / "tracking.json").read_bytes() == cursor
    Mirror(run.folder, client, "here", "0")
    assert client.made == ["a", "a"]


def test_infinite_values_are_flags_and_nan_is_nan():
    entry = {"kind": "train", "step": 3, "time": 5, "values": {"a": math.inf, "b": -math.inf, "c": math.nan, "d": 2}}
    *flags, nan, plain = points(entry)
    assert flags == [("a/infinite", 1.0, 5, 3), ("b/infinite", -1.0, 5, 3)]
    assert nan[0] == "c" and math.isnan(nan[1]) and plain == ("d", 2.0, 5, 3)
    assert [next(finite("x", v, 0, 0))[0] for v in (1.0, math.inf)] == ["x", "x/infinite"]


@given(st.text(max_size=300))
def test_mlflow_takes_every_key(name):
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(slug(name))
    assert len(slug(name)) <= 250


def test_keys_stay_readable_and_apart():
    for plain in ("loss", "valid/map", "loss/utterance", "phase/seconds", "Geräusch 1.5"):
        assert slug(plain) == plain
    names = ["Male speech, man speaking", "Male speech( man speaking", "../x", "/x", "a//b", "a/./b", "", ".", "@", ","]
    assert len({slug(n) for n in names}) == len(names)
    assert slug(names[0]).startswith("Male speech_ man speaking-")
