"""The folder of a run: what was asked, what came of it, and a lock that keeps out a second writer.

runs/NAME/
  spec.yaml        as given          resolved.yaml    every value decided
  run.json         version, hashes, host, device, command, state, sessions
  metrics.jsonl    the truth         log.txt
  checkpoints/     report/           interrupted.json, while a stopped run waits to be resumed
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from c2ftool import __version__
from c2ftool.errors import MissingError, UsageError
from c2ftool.files import lock, translate_failure, write_atomically
from c2ftool.spec.resolve import FREE, as_data, read_resolved, resolved_hash, resolved_yaml
from c2ftool.spec.resolved import Resolved

RECORD = "run.json"
# what a process killed while it made the folder may have left there
_BEGUN = ("spec.yaml", "resolved.yaml", "checkpoints", "log.txt", "metrics.jsonl")


class RunFolder:
    """An open run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.report = path / "report"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "log.txt"

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.path / RECORD).read_text())

    def update(self, **values: Any) -> None:
        """Change entries of run.json. A state that ends a session is dated."""
        record = self.record | values
        if values.get("state", "running") != "running":
            record["ended"] = record["sessions"][-1]["end"] = _now()
        write_atomically(self.path / RECORD, json.dumps(record, indent=1) + "\n")

    def mark_interrupted(self, why: str, step: int) -> None:
        """Leave the marker that a stopped run waits to be resumed; launchers that swallow exit codes read it."""
        marker = {"why": why, "step": step, "exit_code": 75 if why != "by hand" else 130, "time": _now()}
        write_atomically(self.path / "interrupted.json", json.dumps(marker) + "\n")
        self.update(state="interrupted")


@contextlib.contextmanager
def open_run(
    path: Path, *, resume: bool, spec_text: str, resolved: Resolved, info: dict[str, Any]
) -> Iterator[RunFolder]:
    """The run folder, locked for the time of the block; made if it is not there.

    Raises UsageError where another process holds it, where it holds a run and `resume` is not given, and where the run
    in it was made from another resolved spec. `resume` on a folder that is not there starts from the beginning, so that
    a batch script can always say it.
    """
    with translate_failure(path):
        path.mkdir(parents=True, exist_ok=True)
    with lock(path / ".lock"):
        folder = RunFolder(path)
        there = (path / RECORD).exists()
        others = [p.name for p in path.iterdir() if p.name != ".lock" and not p.name.endswith(".partial")]
        if others and not resume:
            raise UsageError(
                f"there is a run in {path}" if there else f"{path} is not empty",
                cure="Go on with it: --resume.  Start another: --run NAME, or remove the folder.",
            )
        if foreign := [name for name in others if not there and name not in _BEGUN]:
            raise UsageError(
                f"{path} holds no run to go on with, but {', '.join(sorted(foreign)[:3])}",
                cure="Choose another name: --run NAME, or remove the folder.",
            )
        session = {"start": _now(), "host": socket.gethostname(), **info}
        digest = resolved_hash(resolved)
        if there:
            _require_same(path, resolved, digest)
            (path / "interrupted.json").unlink(missing_ok=True)
            # what may differ (savings, tracking, checkpoints) holds as it is now
            write_atomically(path / "spec.yaml", spec_text)
            write_atomically(path / "resolved.yaml", resolved_yaml(resolved))
            folder.update(state="running", sessions=[*folder.record["sessions"], session])
        else:
            folder.checkpoints.mkdir(exist_ok=True)
            write_atomically(path / "spec.yaml", spec_text)
            write_atomically(path / "resolved.yaml", resolved_yaml(resolved))
            record = {
                "c2f": __version__,
                "name": resolved.name,
                "task": resolved.task,
                "state": "running",
                "spec_hash": digest,
                "data_fingerprint": resolved.data_fingerprint,
                "created": _now(),
                "sessions": [session],
            }
            write_atomically(path / RECORD, json.dumps(record, indent=1) + "\n")
        try:
            yield folder
        except BaseException:
            with contextlib.suppress(Exception):
                if folder.record["state"] == "running":
                    folder.update(state="failed")
            raise


def _require_same(path: Path, resolved: Resolved, digest: str) -> None:
    """Refuse to resume with another spec, naming what differs."""
    before = read_resolved(path / "resolved.yaml")
    if resolved_hash(before) == digest:
        return
    lines = [
        f"    {key}: {old!r} there, {new!r} now" for key, old, new in _differences(as_data(before), as_data(resolved))
    ]
    more = f"\n    and {len(lines) - 10} more" if len(lines) > 10 else ""
    raise UsageError(
        f"the run in {path} was made from another spec:\n" + "\n".join(lines[:10]) + more,
        cure="Resume with the same spec, arguments and data, or start another run: --run NAME.",
    )


def _differences(a: Any, b: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = dict.fromkeys([*a, *b])
        return [d for k in keys for d in _differences(a.get(k), b.get(k), f"{path}.{k}" if path else k)]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in _differences(x, y, f"{path}.{i}")]
    return [] if a == b or path.partition(".")[0] in FREE else [(path, a, b)]


def _now() -> str:
    """The time in UTC, to be compared as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def all_runs(root: Path) -> list[Path]:
    """The folders of all runs below the root, children of studies included, the longest ended first."""
    found = [p.parent for p in [*root.glob(f"*/{RECORD}"), *root.glob(f"*/*/{RECORD}")]]
    return sorted(found, key=lambda p: _state(p)[1])


def _state(path: Path) -> tuple[str, str]:
    """(state, when it ended or began) of a run; blanks where run.json cannot be read."""
    try:
        record = json.loads((path / RECORD).read_text())
        return record["state"], record.get("ended", record["created"])
    except (OSError, ValueError, KeyError):
        return "", ""


def newest_finished(root: Path) -> Path:
    """The run, or the study, that finished last. Raises MissingError where there is none."""
    for path in reversed(all_runs(root)):
        if _state(path)[0] == "finished":
            return path.parent if (path.parent / "study.json").exists() else path
    raise MissingError(f"no finished run in {root}", cure="Name one, or train one: c2f pretrain specs/eat.yaml")


def children_of(path: Path) -> list[str]:
    """The names of the runs inside a study's folder, or inside any folder of runs that were given one name."""
    if (path / "study.json").exists() and (named := json.loads((path / "study.json").read_text()).get("children")):
        return named
    return sorted(p.parent.name for p in path.glob(f"*/{RECORD}")) if not (path / RECORD).exists() else []


def find_run(reference: str, root: Path) -> Path:
    """The folder of a run, or of several (a study): a name under the root, or a path. Raises MissingError."""
    for path in (root / reference, Path(reference)):
        if (path / RECORD).exists() or children_of(path):
            return path
    names = ", ".join(str(p.relative_to(root)) for p in all_runs(root)[-12:]) or "none"
    raise MissingError(f"no run {reference!r} in {root}", cure=f"There are: {names}.")


def find_runs(pattern: str, root: Path) -> list[Path]:
    """The runs, or studies, that a name stands for; `*` and `?` stand for parts of it. Raises MissingError for none."""
    if not any(sign in pattern for sign in "*?["):
        return [find_run(pattern, root)]
    anchor = Path(pattern).anchor  # a path, not a name
    paths = Path(anchor).glob(pattern.removeprefix(anchor)) if anchor else root.glob(pattern)
    found = [path for path in sorted(paths) if (path / RECORD).exists() or children_of(path)]
    return found or [find_run(pattern, root)]  # which says what there is


def machine() -> dict[str, Any]:
    """What run.json says of the machine, and of the code where that is a git checkout."""
    import platform

    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, "pid": os.getpid()}
    commit = _commit(Path(__file__).resolve().parents[2])
    return versions | ({"git": commit} if commit else {})


def _commit(folder: Path) -> str | None:
    """The commit of a checkout, with `-dirty` behind it where files were changed; None where there is no checkout."""
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return None
