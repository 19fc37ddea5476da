"""From a listing to a prepared set, in parallel, and across interruptions.

Everything is built in `NAME.partial/` beside the target and renamed at the end. The clips are dealt to shards by the
listing alone, each shard is written by one worker, and what is finished is passed over the next time (see `shard`), so
that neither the number of jobs, nor parts, nor a kill at any moment changes a byte of the result.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from c2ftool.data.coding import Coding
from c2ftool.data.record import SetInfo, read_info, write_record
from c2ftool.data.shard import ShardReport, ShardTask, finished, probe, work
from c2ftool.data.sources.listing import Listing
from c2ftool.data.workers import Workers
from c2ftool.data.write import RECORD, VERSION, shard_name
from c2ftool.errors import C2FError, DataError, UsageError
from c2ftool.files import lock, to_disk, translate_failure, write_json

RATES = (1_000, 192_000)
_SHARDS = 16  # at least so many where there are enough clips, so that small sets are prepared in parallel too
_MOST_CLIPS = 512  # 164 MB of 10-s clips at 16 kHz
_FEWEST_CLIPS = 16
_PLAN = "plan.json"


@dataclass(frozen=True)
class Settings:
    """How clips are stored: sample rate in Hz and coding."""

    rate: int = 16_000
    coding: Coding = "wav"


@dataclass(frozen=True)
class Progress:
    """How far a job is; clips of shards that were finished before count as done."""

    clips: int
    clips_done: int
    shards: int
    shards_done: int
    kept: int
    put_aside: int


Watch = Callable[[Progress], None]


def prepare(
    listing: Listing,
    target: Path,
    settings: Settings,
    *,
    jobs: int = 1,
    part: tuple[int, int] | None = None,
    overwrite: bool = False,
    watch: Watch = lambda progress: None,
) -> SetInfo | None:
    """The record of the finished set at `target`, or None after a part of a job array.

    part: (i, n), 0 <= i < n: only the shards with index = i mod n, and no set yet; a call without it does what is left
    and finishes. Raises UsageError where the target exists or is being written, DataError where no clip is usable,
    RunError where the disk is full.
    """
    check(target, settings, jobs, part, overwrite)
    partial = target.with_name(f"{target.name}.partial")
    with translate_failure(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock(target.with_name(f".{target.name}.lock"), shared=part is not None):
            tasks = _tasks(listing, partial, settings)
            plan = _plan(listing, settings, len(tasks))
            if part is None and (info := _complete(partial, plan)) is not None:
                _name(partial, target, info)
                return info
            _begin(partial, plan, alone=part is None)
            if part is not None:
                _run([task for task in tasks if task.index % part[1] == part[0]], jobs, watch)
                return None
            reports = _run(tasks, jobs, watch)
            info = write_record(partial, target.name, listing, settings.rate, settings.coding, reports, {"plan": plan})
            _name(partial, target, info)
            return info


def check(target: Path, settings: Settings, jobs: int, part: tuple[int, int] | None, overwrite: bool) -> None:
    """Raises UsageError where the arguments or what stands at the target forbid a job; nothing is touched."""
    if not RATES[0] <= settings.rate <= RATES[1]:
        raise UsageError(f"rate {settings.rate} Hz", cure=f"give --rate from {RATES[0]} to {RATES[1]}")
    if jobs < 1:
        raise UsageError(f"{jobs} jobs", cure="give --jobs from 1")
    if part is not None and not 0 <= part[0] < part[1]:
        raise UsageError(f"part {part[0]}/{part[1]}", cure="parts are 0/n .. n-1/n")
    check_name(target.name)
    if not target.exists():
        return
    if not (target / RECORD).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(
            "stands there already and is no prepared set", place=str(target), cure="give another --name or --to"
        )
    if not overwrite and (target / RECORD).is_file():
        raise UsageError(
            "is prepared already", place=str(target), cure="give --overwrite to make it anew, or another --name"
        )


def check_name(name: str) -> None:
    """Raises UsageError where a set cannot have this name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) or name.endswith(".partial"):
        raise UsageError(
            f"{name!r} cannot name a set",
            cure="give a --name of letters, digits, `.`, `_` and `-`; --to sets its folder",
        )


def _tasks(listing: Listing, partial: Path, settings: Settings) -> list[ShardTask]:
    """The shards, from the listing alone."""
    clips = listing.clips
    size = min(max(-(-len(clips) // _SHARDS), _FEWEST_CLIPS), _MOST_CLIPS)
    shards = -(-len(clips) // size)
    return [
        ShardTask(
            index=index,
            source=listing.folder,
            target=partial / shard_name(index, shards),
            clips=tuple(clips[index * size : (index + 1) * size]),
            measured=listing.train_splits,
            rate=settings.rate,
            coding=settings.coding,
        )
        for index in range(shards)
    ]


def _plan(listing: Listing, settings: Settings, shards: int) -> dict[str, object]:
    """What all parts of one set must agree on."""
    digest = hashlib.sha256(repr((listing.classes, listing.train_splits)).encode())
    for clip in listing.clips:
        digest.update(repr(clip).encode())
    return {
        "version": VERSION,
        "layout": listing.layout,
        "rate": settings.rate,
        "coding": settings.coding,
        "shards": shards,
        "listing": digest.hexdigest(),
    }


def _begin(partial: Path, plan: dict[str, object], alone: bool) -> None:
    """Makes the folder ready: what was begun with the same plan stays, anything else goes or stops a part."""
    path = partial / _PLAN
    try:
        begun = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        begun = None
    if begun == plan:
        for left in partial.glob("*.tmp-*") if alone else ():  # of processes that were killed while writing
            left.unlink()
        return
    if begun is not None and not alone:
        changed = ", ".join(key for key in plan if begun.get(key) != plan[key])
        raise DataError(
            f"parts of this set were begun with another {changed}",
            place=str(partial),
            cure="give all parts the same arguments and files, or remove the folder to start over",
        )
    if alone and partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    write_json(path, plan)


def _complete(partial: Path, plan: dict[str, object]) -> SetInfo | None:
    """The record of a set that was complete but for its name when its job was killed, or None."""
    try:
        info = read_info(partial)
    except C2FError:
        return None
    return info if info.sources.get("plan") == plan else None


def _run(tasks: list[ShardTask], jobs: int, watch: Watch) -> list[ShardReport]:
    """The reports of all shards, of which those finished before are read only."""
    reports = [report for task in tasks if (report := finished(task)) is not None]
    kept = len(reports)
    clips = {task.index: len(task.clips) for task in tasks}

    def done(report: ShardReport | None) -> None:
        if report is not None:
            reports.append(report)
        watch(
            Progress(
                clips=sum(clips.values()),
                clips_done=sum(clips[report.index] for report in reports),
                shards=len(tasks),
                shards_done=len(reports),
                kept=kept,
                put_aside=sum(len(report.put_aside) for report in reports),
            )
        )

    done(None)
    there = {report.index for report in reports}
    left = [task for task in tasks if task.index not in there]
    if left:
        with Workers(work, probe, min(jobs, len(left))) as workers:
            workers.run(left, done)
    return reports


def _name(partial: Path, target: Path, info: SetInfo) -> None:
    """Takes out what is not part of a finished set, and gives it its name."""
    belongs = {shard["file"] for shard in info.shards} | {"dataset_info.json", "state.json", RECORD}
    for path in partial.iterdir():
        if path.name not in belongs:
            path.unlink()
    publish(partial, target)


def publish(partial: Path, target: Path) -> None:
    """Gives a finished folder its name; a set that stood there goes once the new one is in its place."""
    to_disk(partial)
    old = target.with_name(f"{target.name}.old.partial")
    if old.exists():
        shutil.rmtree(old)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    to_disk(target.parent)
    if old.exists():
        shutil.rmtree(old)
