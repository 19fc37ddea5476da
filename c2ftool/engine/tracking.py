"""MLflow as a mirror of metrics.jsonl: training only writes files, and a process of its own sends what is new in them.

A thread would not do: MLflow's client is Python code, and what it holds the interpreter for, training waits for. The
process (`mlflow_sink.py`) ends by itself when training does, however that ends. A failure is said once. What a dead
server or a kill left unsent is sent when the run is started again, because the files are whole:

metrics.jsonl    what was measured        tracking.jsonl    parameters, phases, files to keep; only ever grows
tracking.json    where it goes and how far it was sent; written by the sink

One MLflow run for a command, with the curves; a child run for each phase, with its settings, FLOPs and seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from c2ftool.errors import C2FError
from c2ftool.files import write_atomically
from c2ftool.spec.running import Tracking

TO_SEND, CURSOR = "tracking.jsonl", "tracking.json"
_PACKAGE = Path(__file__).resolve().parents[2]


def store_uri(settings: Tracking, runs_root: Path) -> str:
    """Where runs are tracked: the spec's word, MLFLOW_TRACKING_URI, or a SQLite file beside the runs."""
    default = f"sqlite:///{(runs_root / 'mlflow.db').resolve()}"
    return settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or default


def without_password(text: str) -> str:
    """The text with `user:password@` taken out of its addresses."""
    return re.sub(r"(?<=:)//[^/@\s]+@", "//", text)


@dataclass
class Tracker:
    """The training side: takes down what is to be sent. No method raises, and only `finish` waits, for `patience` s."""

    settings: Tracking
    folder: Path  # of the run
    runs_root: Path
    name: str
    params: dict[str, Any]
    tags: dict[str, str]
    warn: Callable[[str], None]
    patience: float = 30.0
    _process: subprocess.Popen[str] | None = None
    _listener: threading.Thread | None = None
    _ended: bool = False  # the sink said that it had done what it could
    _warned: bool = False

    @property
    def uri(self) -> str:
        """Where it goes, without a password."""
        return without_password(store_uri(self.settings, self.runs_root))

    def start(self) -> Tracker:
        """Begin sending; does nothing where `tracking.kind` is none."""
        if self.settings.kind == "none":
            return self
        if (self.folder / TO_SEND).exists():
            self._note({"resumed": self.tags})
        else:
            self._begin()
        path = os.pathsep.join(filter(None, (str(_PACKAGE), os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "c2ftool.engine.mlflow_sink", str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for training, which then says what is to happen
            )
        except OSError as fault:
            self._complain(f"cannot be started ({fault.strerror})")
            return self
        self._tell(json.dumps({"uri": store_uri(self.settings, self.runs_root), "name": self.settings.experiment}))
        self._listener = threading.Thread(target=self._listen, name="c2f-tracking", daemon=True)
        self._listener.start()
        return self

    def phase(self, name: str, params: dict[str, Any]) -> None:
        """A phase has begun, or is gone on with."""
        self._note({"phase": name, "params": params})

    def phase_summary(self, name: str, values: dict[str, float]) -> None:
        """A phase has ended: what it took."""
        self._note({"ended": name, "values": values, "time": int(time.time() * 1000)})

    def artifacts(self, paths: list[Path]) -> None:
        """Files of the run folder to keep with the run."""
        for path in paths:
            self._note({"artifact": os.path.relpath(path, self.folder)})

    def finish(self, status: str) -> None:
        """Send the rest and end; status is FINISHED, FAILED or KILLED. Waits `patience` at most, less for the dead."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.write(status + "\n")
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(min(self.patience, 5.0) if self._warned else self.patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self._complain("is slow; what is missing is sent when the run is started again with --resume")
        if self._listener is not None:
            self._listener.join(1.0)

    def _begin(self) -> None:
        """Write the first line. Its id finds the MLflow run again if a kill kept the sink from taking down its own."""
        first = {"id": uuid.uuid4().hex, "name": self.name, "params": self.params, "tags": self.tags}
        try:
            write_atomically(self.folder / TO_SEND, json.dumps(first, default=str) + "\n")
        except C2FError as fault:
            self._complain(fault.message)

    def _note(self, line: dict[str, Any]) -> None:
        """Append to what is to be sent; whole at once, so that a kill can tear the last line only."""
        if self.settings.kind == "none":
            return
        path = self.folder / TO_SEND
        try:
            with path.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                torn = file.tell() > 0 and file.read(1) != b"\n"
                file.write(b"\n" * torn + json.dumps(line, default=str).encode() + b"\n")
        except OSError as fault:
            self._complain(f"{path.name} cannot be written: {fault.strerror}")

    def _tell(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has died: `_listen` says so
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        """Pass on what the sink says. In a thread, which sleeps until there is something."""
        process = self._process
        assert process is not None and process.stdout is not None
        with process.stdout as answers:
            for line in answers:
                said = json.loads(line)
                self._ended = self._ended or bool(said.get("ended"))
                if "warning" in said:
                    self._complain(said["warning"])
        if not self._ended and self._process is not None:
            self._complain("has stopped; what is missing is sent when the run is started again with --resume")

    def _complain(self, text: str) -> None:
        if self._warned:
            return
        self._warned = True
        with contextlib.suppress(Exception):  # not even a full disk under log.txt
            self.warn(f"tracking: {self.uri} {text}")
