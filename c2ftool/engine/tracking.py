"""MLflow as a mirror of metrics.jsonl: one background thread of rank 0 reads the file and sends what is new.

Training never calls MLflow, never waits for it and never sees its errors: the loop only appends to the file. A failure
is said once and tried again; what a dead server or a kill left unsent is sent by the next start of the run, because the
file is whole and `tracking.json` says how far it was sent.

One MLflow run for a command, with the curves; a child run for each phase, with its settings, FLOPs and seconds.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from c2ftool.engine.metrics_log import read_metrics
from c2ftool.files import lock, write_atomically
from c2ftool.spec.running import Tracking

_EVERY = 2.0  # seconds between batches
_MOST = 1000  # metrics in a batch, the limit of MLflow's REST interface
_PATIENCE = 30.0  # seconds that the end of a run waits for the last batch


def store_uri(settings: Tracking, runs_root: Path) -> str:
    """Where runs are tracked: the spec's word, MLFLOW_TRACKING_URI, or a SQLite file beside the runs."""
    default = f"sqlite:///{(runs_root / 'mlflow.db').resolve()}"
    return settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or default


@dataclass
class Tracker:
    """The thread and what it is to send. Everything but the constructor may be called from the training thread."""

    settings: Tracking
    folder: Path  # of the run
    runs_root: Path
    name: str
    params: dict[str, Any]
    tags: dict[str, str]
    warn: Callable[[str], None]
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _phases: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # name, params
    _summaries: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    _artifacts: list[Path] = field(default_factory=list)
    _status: str = "RUNNING"
    _warned: bool = False
    _thread: threading.Thread | None = None

    @property
    def uri(self) -> str:
        return store_uri(self.settings, self.runs_root)

    def start(self) -> Tracker:
        """Begin sending."""
        self._thread = threading.Thread(target=self._run, name="c2f-tracking", daemon=True)
        self._thread.start()
        return self

    def phase(self, name: str, params: dict[str, Any]) -> None:
        """A phase has begun."""
        with self._lock:
            self._phases.append((name, params))

    def phase_summary(self, name: str, values: dict[str, float]) -> None:
        """What a phase took."""
        with self._lock:
            self._summaries.append((name, values))

    def artifacts(self, paths: list[Path]) -> None:
        """Files to keep with the run."""
        with self._lock:
            self._artifacts.extend(paths)

    def finish(self, status: str) -> None:
        """Send the rest and end; status is FINISHED, FAILED or KILLED. Waits 30 s at most."""
        self._status = status
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():
                self.warn(f"tracking: {self.uri} is slow; what is missing is sent when the run is started again")

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        client: _Client | None = None
        while True:
            last = self._stop.wait(_EVERY if client else 0.05)
            try:
                client = client or _Client.open(self)
                self._send(client)
                if last:
                    client.end(self._status)
            except Exception as fault:  # whatever a tracking server does, training goes on
                if not self._warned:
                    self._warned = True
                    line = str(fault).strip().splitlines()
                    self.warn(
                        f"tracking: {self.uri} does not answer ({line[0][:200] if line else type(fault).__name__})"
                    )
            if last:
                return

    def _send(self, client: _Client) -> None:
        with self._lock:
            phases, summaries, files = list(self._phases), list(self._summaries), list(self._artifacts)
        for name, params in phases:
            client.child(name, params)
        client.metrics(read_metrics(self.folder / "metrics.jsonl"))
        for name, values in summaries:
            client.summary(name, values)
        for path in files:
            client.artifact(path)
        with self._lock:  # sent: forget them
            del self._phases[: len(phases)], self._summaries[: len(summaries)], self._artifacts[: len(files)]


class _Client:
    """MLflow's client with the ids of this run; the only place that knows MLflow."""

    def __init__(self, folder: Path, client: Any, state: dict[str, Any]) -> None:
        self._folder, self._client, self._state = folder, client, state

    @classmethod
    def open(cls, tracker: Tracker) -> _Client:
        """Connect, and take up or create the run."""
        for name, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
            ("GIT_PYTHON_REFRESH", "quiet"),
        ):
            os.environ.setdefault(name, value)
        import logging

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        uri, cursor = tracker.uri, tracker.folder / "tracking.json"
        tracker.runs_root.mkdir(parents=True, exist_ok=True)
        # several processes that create one SQLite store at once crash in MLflow's own migrations
        with lock(tracker.runs_root / "mlflow.db.lock", wait=True):
            client = MlflowClient(uri)
            found = client.get_experiment_by_name(tracker.settings.experiment)
            if found is None:
                local = uri.startswith("sqlite:")
                place = (tracker.runs_root / "mlartifacts").resolve().as_uri() if local else None
                experiment = client.create_experiment(tracker.settings.experiment, artifact_location=place)
            else:
                experiment = found.experiment_id
        state = json.loads(cursor.read_text()) if cursor.exists() else {}
        if state.get("uri") == uri:
            try:
                client.update_run(state["run"], status="RUNNING")
                return cls(tracker.folder, client, state)
            except MlflowException:
                pass  # the store was removed: begin anew
        run = client.create_run(experiment, tags=tracker.tags, run_name=tracker.name)
        state = {"uri": uri, "experiment": experiment, "run": run.info.run_id, "children": {}, "sent": {}}
        out = cls(tracker.folder, client, state)
        out._params(run.info.run_id, tracker.params)
        out._save()
        return out

    def child(self, name: str, params: dict[str, Any]) -> str:
        """The run of a phase, created the first time."""
        if name not in self._state["children"]:
            tags = {"mlflow.parentRunId": self._state["run"]}
            run = self._client.create_run(self._state["experiment"], tags=tags, run_name=name)
            self._params(run.info.run_id, params)
            self._state["children"][name] = run.info.run_id
            self._save()
        return str(self._state["children"][name])

    def metrics(self, entries: list[dict[str, Any]]) -> None:
        """Send what was not sent before. A resumed run's repeated steps have the same values: not again."""
        from mlflow.entities import Metric

        sent: dict[str, int] = self._state["sent"]
        fresh = [e for e in entries if e["step"] > sent.get(e["kind"], -1)]
        for chunk in _chunks(fresh):
            points = [
                Metric(_slug(prefix + name), value, entry["time"], entry["step"])
                for entry in chunk
                for prefix in (_PREFIX.get(entry["kind"], f"{entry['kind']}/"),)
                for name, value in entry["values"].items()
            ]
            self._client.log_batch(self._state["run"], metrics=points)
            for entry in chunk:
                sent[entry["kind"]] = max(entry["step"], sent.get(entry["kind"], -1))
            self._save()

    def summary(self, name: str, values: dict[str, float]) -> None:
        """Figures of a finished phase."""
        from mlflow.entities import Metric

        run = self.child(name, {})
        now = int(time.time() * 1000)
        self._client.log_batch(run, metrics=[Metric(_slug(k), v, now, 0) for k, v in values.items()])
        self._client.set_terminated(run, "FINISHED")

    def artifact(self, path: Path) -> None:
        self._client.log_artifact(self._state["run"], str(path))

    def end(self, status: str) -> None:
        self._client.set_terminated(self._state["run"], status)

    def _params(self, run: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        items = [Param(_slug(key), str(value)[:6000]) for key, value in params.items()]
        for start in range(0, len(items), 100):
            self._client.log_batch(run, params=items[start : start + 100])

    def _save(self) -> None:
        write_atomically(self._folder / "tracking.json", json.dumps(self._state, indent=1) + "\n")


_PREFIX = {"train": "", "evaluate": "valid/", "test": "test/"}


def _slug(name: str) -> str:
    """A name that MLflow takes: letters, digits and `_-. :/`."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def _chunks(entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Runs of entries with at most `_MOST` values together."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        if chunk and size + len(entry["values"]) > _MOST:
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += len(entry["values"])
    if chunk:
        yield chunk
