"""A file that kills its reader is found and put aside; deaths that are no file's fault are not held against one."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from c2ftool.data.shard import ShardReport, ShardTask
from c2ftool.data.sources.listing import ClipRef
from c2ftool.data.workers import Workers
from c2ftool.errors import RunError

# Workers are spawned: what they run must be importable, so that the crashing reader is written as a module.
READER = """
import os
from pathlib import Path

from c2ftool.data.shard import PutAside, ShardReport


def read(task):
    for place, clip in enumerate(task.clips):
        if clip.id.startswith("killer") and place not in task.killers:
            os._exit(9)
        if clip.id.startswith("once"):
            mark = Path(task.source) / clip.id
            if not mark.exists():
                mark.touch()
                os._exit(9)


def work(task):
    read(task)
    report = ShardReport(task.index, "", rows=len(task.clips) - len(task.killers))
    report.put_aside = [PutAside(task.clips[p].id, "", "", "killer", "") for p in sorted(task.killers)]
    return report


def never(task):
    os._exit(9)
"""


def reports(folder: Path, monkeypatch: pytest.MonkeyPatch, *shards: list[str], work: str = "work") -> list[ShardReport]:
    (folder / "crashing_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(folder)
    reader = importlib.import_module("crashing_reader")
    tasks = [
        ShardTask(index, folder, folder / "x", tuple(ClipRef(name, "", "") for name in names), (), 16_000, "wav")
        for index, names in enumerate(shards)
    ]
    done: list[ShardReport] = []
    with Workers(getattr(reader, work), reader.never if work == "never" else reader.read, 2) as workers:
        workers.run(tasks, done.append)
    return sorted(done, key=lambda report: report.index)


def test_killers_are_found_and_the_rest_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a", "b", "killer1", "c", "d", "e", "killer2"]
    done = reports(tmp_path, monkeypatch, ["x", "y"], names, ["z"])
    assert [report.rows for report in done] == [2, 5, 1]
    assert [item.id for report in done for item in report.put_aside] == ["killer1", "killer2"]


def test_a_worker_that_dies_by_chance_costs_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = reports(tmp_path, monkeypatch, ["a", "once1", "once2", "b"], ["once3"], ["c", "d"])
    assert [(report.rows, report.put_aside) for report in done] == [(4, []), (1, []), (2, [])]


def test_workers_that_cannot_start_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="before they read anything"):
        reports(tmp_path, monkeypatch, ["a", "b"], work="never")
