"""The process that sends a run's metrics, parameters and files to MLflow; the only place that knows MLflow.

    python -m c2ftool.engine.mlflow_sink RUN_FOLDER

Started by `tracking.py`, which says on standard input where to send (one line of JSON) and, at the end, how the run
ended (FINISHED, FAILED, KILLED); the end of the input without a word means that training was killed. Everything sent
carries the time it was measured at, so that sending it twice leaves one row.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import posixpath
import re
import select
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from c2ftool.engine.metrics_log import parse_line
from c2ftool.engine.tracking import CURSOR, TO_SEND, without_password
from c2ftool.errors import C2FError
from c2ftool.files import lock, write_atomically

_EVERY = 2.0  # seconds between batches
_RETRY = 60.0  # seconds between attempts, at most, where a server does not answer
_MOST = 1000  # metrics in a batch, the limit of MLflow's REST interface
_BLOCK = 4_000_000  # bytes of metrics.jsonl taken at once
_PATIENCE = 30  # seconds for the rest, after training was killed
_PREFIX = {"train": "", "evaluate": "valid/"}

Point = tuple[str, float, int, int]  # key, value, time in ms, step


class Mirror:
    """A run folder and its MLflow run."""

    def __init__(self, folder: Path, client: Any, uri: str, experiment: str) -> None:
        """Takes up the run that tracking.json names, or makes one. Raises whatever MLflow raises."""
        self._folder, self._client = folder, client
        self._metrics: BinaryIO | None = None
        self._read = 0  # bytes of it that were sent
        birth = _lines(folder)[0]
        state = json.loads((folder / CURSOR).read_text()) if (folder / CURSOR).exists() else {}
        if state.get("uri") != uri or state.get("id") != birth["id"] or not self._is_there(state["run"]):
            state = {"uri": uri, "id": birth["id"], "run": None, "children": {}, "done": [], "sent": {}}
        self._state: dict[str, Any] = state | {"experiment": experiment}
        self._before: dict[str, int] = dict(state["sent"])  # steps that earlier sessions sent
        if state["run"] is None:
            self._state["run"] = self._made(birth["id"], birth["name"], birth["tags"], birth["params"])
            self._save()
        client.update_run(self._state["run"], status="RUNNING")

    def send(self) -> None:
        """Send everything that is new. A file that cannot be stored holds up nothing else; it is raised at the end."""
        while self._send_block():
            pass
        fault: Exception | None = None
        resumed = 0
        for number, line in enumerate(_lines(self._folder)):
            resumed += "resumed" in line
            if number in self._state["done"]:
                continue
            try:
                self._do(line, resumed)
            except Exception as seen:
                if "artifact" not in line:
                    raise
                fault = seen
                continue
            self._state["done"].append(number)
            self._save()
        if fault is not None:
            raise fault

    def end(self, status: str) -> None:
        """Say how the run ended, of phases that did not end as well."""
        for run in [*self._state["children"].values(), self._state["run"]]:
            if run == self._state["run"] or self._client.get_run(run).info.status == "RUNNING":
                self._client.set_terminated(run, status)

    def _send_block(self) -> bool:
        """Send the next lines of metrics.jsonl; False if there are none.

        Steps that an earlier session sent are left out: repeated after a resume, they have the same values.
        """
        if self._metrics is None:
            with contextlib.suppress(FileNotFoundError):
                # kept open: a resume replaces the file, and a position in the old one means nothing in the new one
                self._metrics = (self._folder / "metrics.jsonl").open("rb")
        if self._metrics is None:
            return False
        self._metrics.seek(self._read)
        block = self._metrics.read(_BLOCK)
        whole = block.rfind(b"\n") + 1
        entries = [parse_line(line) for line in block[:whole].splitlines()]
        fresh = [e for e in entries if e["step"] > self._before.get(e["kind"], -1)]
        self._log(self._state["run"], [p for entry in fresh for p in points(entry)])
        sent = self._state["sent"]
        for entry in fresh:
            sent[entry["kind"]] = max(entry["step"], sent.get(entry["kind"], -1))
        if fresh:
            self._save()
        self._read += whole  # only now: what raised above is sent again
        return whole > 0

    def _do(self, line: dict[str, Any], resumed: int) -> None:
        run = self._state["run"]
        match line:
            case {"resumed": tags}:
                for key, value in tags.items():
                    self._client.set_tag(run, f"c2f.resume.{resumed}.{key.removeprefix('c2f.')}", value)
            case {"phase": name, "params": params}:
                self._client.update_run(self._child(name, params), status="RUNNING")
            case {"ended": name, "values": values, "time": at}:
                child = self._child(name, {})
                self._log(child, [p for k, v in values.items() for p in finite(k, v, at, 0)])
                self._client.set_terminated(child, "FINISHED")
            case {"artifact": path}:
                file = self._folder / path
                if file.exists():
                    self._client.log_artifact(run, str(file))

    def _child(self, name: str, params: dict[str, Any]) -> str:
        """The run of a phase, made the first time."""
        if name not in self._state["children"]:
            tags = {"mlflow.parentRunId": self._state["run"]}
            made = self._made(f"{self._state['id']}/{slug(name)}", name, tags, params)
            self._state["children"][name] = made
            self._save()
        return str(self._state["children"][name])

    def _made(self, mark: str, name: str, tags: dict[str, str], params: dict[str, Any]) -> str:
        """The MLflow run with this mark; made, unless a kill came between making it and taking down its id."""
        from mlflow.entities import Param

        experiment = self._state["experiment"]
        found = self._client.search_runs([experiment], f"tags.c2f_id = '{mark}'", max_results=1)
        run = found[0] if found else self._client.create_run(experiment, tags={**tags, "c2f_id": mark}, run_name=name)
        items = [Param(slug(key), str(value)[:6000]) for key, value in params.items()]
        for start in range(0, len(items), 100):
            self._client.log_batch(run.info.run_id, params=items[start : start + 100])
        return str(run.info.run_id)

    def _is_there(self, run: str) -> bool:
        """Whether the store still has a run; a server that does not answer raises."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(run).info.lifecycle_stage == "active")
        except MlflowException as fault:
            if fault.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _log(self, run: str, values: list[Point]) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(values), _MOST):
            self._client.log_batch(run, metrics=[Metric(*point) for point in values[start : start + _MOST]])

    def _save(self) -> None:
        write_atomically(self._folder / CURSOR, json.dumps(self._state, indent=1) + "\n")


def points(entry: dict[str, Any]) -> list[Point]:
    """What MLflow is told of a line of metrics.jsonl."""
    prefix = _PREFIX.get(entry["kind"], f"{entry['kind']}/")
    return [
        p for name, value in entry["values"].items() for p in finite(prefix + name, value, entry["time"], entry["step"])
    ]


def finite(name: str, value: float, at: int, step: int) -> Iterator[Point]:
    """The point of a value. MLflow keeps NaN, but an infinite value would turn into 1.8e308: it goes to NAME/infinite
    as 1 or -1."""
    if math.isinf(value):
        yield slug(f"{name}/infinite"), math.copysign(1.0, value), at, step
    else:
        yield slug(name), float(value), at, step


def slug(name: str) -> str:
    """A key that MLflow takes: letters, digits and `_-. :/`, no empty or dotted part, at most 250 of them.

    Where that changes the name, a check sum of it is put behind, so that two names never share a key.
    """
    parts = re.sub(r"[^\w\-. :/]", "_", name).split("/")
    key = "/".join(part for part in parts if part not in ("", ".", "..")) or "_"
    if key == name and len(key) <= 250 and posixpath.normpath(key) == key:
        return key
    return f"{key[:240]}-{zlib.crc32(name.encode()):08x}"


def _lines(folder: Path) -> list[dict[str, Any]]:
    """What tracking.py took down; a line that a kill cut short is empty."""
    lines: list[dict[str, Any]] = []
    for text in (folder / TO_SEND).read_text().split("\n")[:-1]:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            lines.append({})
    return lines


def _connect(uri: str, experiment: str) -> tuple[Any, str, str]:
    """MLflow's client, the address as it may be shown, and the experiment's id."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        ("GIT_PYTHON_REFRESH", "quiet"),
    ):
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    place, guard = None, contextlib.nullcontext()
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        place = (database.parent / "mlartifacts").as_uri()
        # several processes that make or upgrade one store at once crash in MLflow's own migrations
        guard = lock(database.with_name(f"{database.name}.lock"), wait=True)  # type: ignore[assignment]
    with guard:
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment, artifact_location=place)
    return client, without_password(uri), str(number)


class Orders:
    """What training says on standard input."""

    def __init__(self, handle: int) -> None:
        self._handle, self._read = handle, b""

    def wait(self, seconds: float | None) -> str | None:
        """The next line; None if there is none in that time; "KILLED" at the end of the input."""
        while b"\n" not in self._read:
            if not select.select([self._handle], [], [], seconds)[0]:
                return None
            more = os.read(self._handle, 65536)
            if not more:
                signal.alarm(_PATIENCE)  # nobody is left to end this process if a server keeps it
                return "KILLED"
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()


def run(folder: Path, orders: Orders, say: Callable[[dict[str, Any]], None]) -> None:
    """Send until training ends, then once more."""
    hello = orders.wait(None)
    if hello is None or not hello.startswith("{"):
        return
    uri, name = (json.loads(hello)[key] for key in ("uri", "name"))
    mirror: Mirror | None = None
    pause, status = 0.0, None
    while status is None:
        status = orders.wait(pause)
        try:
            mirror = mirror or Mirror(folder, *_connect(uri, name))
            mirror.send()
            if status is not None:
                mirror.end(status)
            pause = _EVERY
        except Exception as fault:  # whatever a tracking server does, training goes on
            text = without_password((str(fault).strip().splitlines() or [type(fault).__name__])[0])[:200]
            say({"warning": f"failed: {text} (training goes on; it is tried again)"})
            pause = min(_RETRY, 2 * pause or _EVERY)
    say({"ended": True})


def main() -> None:
    """The process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # for training, whose end this process sees
    os.nice(10)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what MLflow prints is not for training

    def say(message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    folder = Path(sys.argv[1])
    try:
        with lock(folder / ".tracking.lock", wait=True):  # the sink of a session killed just now may still be at it
            run(folder, Orders(0), say)
    except C2FError:
        sys.exit(1)  # the run folder was removed, or its disk is full


if __name__ == "__main__":
    main()
