"""metrics.jsonl: one line of JSON for each thing measured. It is the truth; MLflow and the report are made from it.

    {"time": ms, "step": 120, "phase": "fine", "kind": "train", "values": {"loss": 0.71, "lr": 0.0005}}

kind: train, evaluate, cost (of the run so far), border, phase, test, savings. Steps count over the whole run. Values
that are not finite are written as the words "nan", "inf", "-inf". After a resume the file reads as if the run had never
been stopped.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from c2ftool.files import translate_failure, write_atomically

_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_encode = json.JSONEncoder(allow_nan=False).encode  # json.dumps would make one for each line


class MetricsLog:
    """The open file, one line flushed at a time."""

    def __init__(self, path: Path, keep_to: int | None = None) -> None:
        """keep_to: on a resume, the step of the checkpoint; later lines, and a line torn by a kill, are dropped."""
        self.path = path
        with translate_failure(path):
            if path.exists():
                kept = [e for e in read_metrics(path) if keep_to is not None and _belongs(e, keep_to)]
                write_atomically(path, "".join(_line(e) for e in kept))
            self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, phase: str, values: dict[str, float]) -> dict[str, Any]:
        """Append a line; returns its entry."""
        entry = {"time": int(time.time() * 1000), "step": step, "phase": phase, "kind": kind, "values": values}
        try:  # plainly: this is done in every step, and entering a context costs as much as the encoding
            self._file.write(_line(entry))
            self._file.flush()
        except OSError:
            with translate_failure(self.path):
                raise
        return entry

    def sync(self) -> None:
        """See to it that what was written is on the disk."""
        with translate_failure(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _belongs(entry: dict[str, Any], step: int) -> bool:
    """Whether a line was written before the checkpoint at `step`. Lines on the whole run come after the last."""
    return entry["step"] <= step and entry["kind"] not in ("test", "savings")


def _line(entry: dict[str, Any]) -> str:
    if not all(map(math.isfinite, entry["values"].values())):
        values = {name: value if math.isfinite(value) else str(value) for name, value in entry["values"].items()}
        entry = entry | {"values": values}
    return _encode(entry) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The entries of a file, without a last line that a kill cut short."""
    entries: list[dict[str, Any]] = []
    if not path.exists():
        return entries
    for line in path.read_bytes().split(b"\n"):
        try:
            entries.append(parse_line(line))
        except ValueError:
            break
    return entries


def parse_line(line: bytes) -> dict[str, Any]:
    """The entry of a line, its words for values that are not finite turned back. Raises ValueError for a torn line."""
    entry = json.loads(line)
    entry["values"] = {k: _WORDS[v] if isinstance(v, str) else v for k, v in entry["values"].items()}
    return entry


def curves(entries: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) pairs; scores of the validation clips as `valid/NAME`."""
    out: dict[str, list[tuple[int, float]]] = {}
    for entry in entries:
        if entry["kind"] not in ("train", "evaluate"):
            continue
        prefix = "valid/" if entry["kind"] == "evaluate" else ""
        for name, value in entry["values"].items():
            if math.isfinite(value):
                out.setdefault(prefix + name, []).append((entry["step"], value))
    return out
