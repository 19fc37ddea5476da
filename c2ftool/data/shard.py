"""One shard of a prepared set: decoded, coded, measured and written by one worker process.

A finished shard has a side file with what it holds and the hash of its input (settings, clips, and each audio file's
size and time of change); a later `prepare` passes over shards whose side file agrees. Side files are removed when the
set is finished.

Events keep the times of their table. Where a clip ends is known once it is decoded: then events that end later by more
than half a millisecond (tables round to one) are counted as handled, those that begin within the clip and those that
lie wholly past its end.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from c2ftool.data.coding import Coding, Int16, encode
from c2ftool.data.decode import Unusable, decode, resampler
from c2ftool.data.sources.listing import ClipRef, Event
from c2ftool.data.statistics import Sums, clip_sums, one_thread
from c2ftool.data.write import VERSION, ShardWriter
from c2ftool.files import write_json

KILLER = "kills the decoder"
PAST_END = "events past their clip's end"
WHOLLY_PAST_END = "events wholly past their clip's end"
_ROUNDING = 0.0005


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to write one shard.

    source: folder of the clips' paths. target: the shard's file. measured: the splits whose log-mel is measured.
    killers: places in `clips` of those that brought a worker down.
    """

    index: int
    source: Path
    target: Path
    clips: tuple[ClipRef, ...]
    measured: tuple[str, ...]
    rate: int
    coding: Coding
    killers: frozenset[int] = frozenset()

    @property
    def side_file(self) -> Path:
        return self.target.with_suffix(".json")

    def narrowed(self, places: tuple[int, ...]) -> ShardTask:
        """The task of some of the clips alone."""
        return replace(self, clips=tuple(self.clips[place] for place in places), killers=frozenset())


@dataclass(frozen=True)
class PutAside:
    """A clip that is not in the set, with its reason (see `decode`) and what was seen."""

    id: str
    path: str
    split: str
    reason: str
    detail: str


@dataclass
class ShardReport:
    """What a shard holds: rows, file size and hash, counts, the log-mel sums, and the clips put aside.

    classes: clips by split and class. events: by split and class.
    """

    index: int
    input_hash: str
    rows: int = 0
    size: int = 0
    sha256: str = ""
    samples: dict[str, int] = field(default_factory=dict)
    clips: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[int, int]] = field(default_factory=dict)
    events: dict[str, dict[int, int]] = field(default_factory=dict)
    folds: dict[int, int] = field(default_factory=dict)
    label_counts: dict[int, int] = field(default_factory=dict)
    rates: dict[int, int] = field(default_factory=dict)
    handled: dict[str, int] = field(default_factory=dict)
    sums: Sums = field(default_factory=Sums)
    put_aside: list[PutAside] = field(default_factory=list)

    def count(self, clip: ClipRef, samples: int) -> None:
        """Counts a clip that is in the set."""
        self.clips[clip.split] = self.clips.get(clip.split, 0) + 1
        self.samples[clip.split] = self.samples.get(clip.split, 0) + samples
        self.folds[clip.fold] = self.folds.get(clip.fold, 0) + 1
        self.label_counts[len(clip.labels)] = self.label_counts.get(len(clip.labels), 0) + 1
        of_split = self.classes.setdefault(clip.split, {})
        for label in clip.labels:
            of_split[label] = of_split.get(label, 0) + 1
        events = self.events.setdefault(clip.split, {})
        for event in clip.events:
            events[event.label] = events.get(event.label, 0) + 1

    @classmethod
    def read(cls, path: Path) -> ShardReport:
        """The report of a side file; raises OSError, ValueError, KeyError or TypeError where it is none."""
        values: dict[str, Any] = json.loads(path.read_text("utf-8"))
        for key in ("folds", "label_counts", "rates"):
            values[key] = {int(number): count for number, count in values[key].items()}
        for key in ("classes", "events"):
            values[key] = {
                split: {int(label): count for label, count in of_split.items()}
                for split, of_split in values[key].items()
            }
        values["sums"] = Sums(**values["sums"])
        values["put_aside"] = [PutAside(**item) for item in values["put_aside"]]
        return cls(**values)


def input_hash(task: ShardTask) -> str:
    """The hash of everything a shard is made from."""
    digest = hashlib.sha256(repr((VERSION, resampler(), task.rate, task.coding, task.measured)).encode())
    for clip in task.clips:
        try:
            status = (task.source / clip.path).stat()
            digest.update(repr((clip, status.st_size, status.st_mtime_ns)).encode())
        except OSError as error:
            digest.update(repr((clip, error.errno)).encode())
    return digest.hexdigest()


def finished(task: ShardTask) -> ShardReport | None:
    """The report of a shard that was written from the same input, or None."""
    try:
        report = ShardReport.read(task.side_file)
        if report.input_hash == input_hash(task) and task.target.stat().st_size == report.size:
            return report
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def work(task: ShardTask) -> ShardReport:
    """Writes the shard and its side file, unless both are there from the same input; the shard's report."""
    if (done := finished(task)) is not None:
        return done
    task.side_file.unlink(missing_ok=True)
    report = ShardReport(task.index, input_hash(task))
    with ShardWriter(task.target) as writer:
        for clip, samples in _decoded(task, report):
            writer.append(clip, encode(samples, task.rate, task.coding), len(samples))
            report.count(clip, len(samples))
    report.rows, report.size, report.sha256 = writer.rows, writer.size, writer.sha256
    write_json(task.side_file, asdict(report))
    return report


def probe(task: ShardTask) -> None:
    """Decodes and measures the clips and writes nothing: to find the one that brings a worker down."""
    for _ in _decoded(task, ShardReport(task.index, "")):
        pass


def write_made(task: ShardTask, made: Iterator[tuple[ClipRef, Int16]]) -> ShardReport:
    """Writes a shard of clips that are made, not read; the shard's report."""
    report = ShardReport(task.index, "")
    with ShardWriter(task.target) as writer, one_thread():
        for clip, samples in made:
            writer.append(clip, encode(samples, task.rate, task.coding), len(samples))
            report.count(clip, len(samples))
            if clip.split in task.measured:
                report.sums += clip_sums(samples, task.rate)
    report.rows, report.size, report.sha256 = writer.rows, writer.size, writer.sha256
    return report


def _decoded(task: ShardTask, report: ShardReport) -> Iterator[tuple[ClipRef, Int16]]:
    """The usable clips; what is handled, put aside and measured goes into the report."""
    handled: Counter[str] = Counter()
    rates: Counter[int] = Counter()
    with one_thread():
        for place, clip in enumerate(task.clips):
            try:
                if place in task.killers:
                    raise Unusable(KILLER, "a worker process died while reading it, more than once")
                decoded = decode(task.source / clip.path, task.rate, clip.start, clip.stop, clip.inside)
            except Unusable as fault:
                report.put_aside.append(PutAside(clip.id, clip.place, clip.split, fault.reason, fault.detail))
                continue
            handled.update(decoded.handled)
            handled.update(_past_end(clip.events, len(decoded.samples) / task.rate))
            rates[decoded.source_rate] += 1
            if clip.split in task.measured and "silent" not in decoded.handled:
                report.sums += clip_sums(decoded.samples, task.rate)
            yield clip, decoded.samples
    report.handled = dict(sorted(handled.items()))
    report.rates = dict(sorted(rates.items()))


def _past_end(events: Iterable[Event], seconds: float) -> Iterator[str]:
    """The rule for each event that ends after its clip of so many seconds."""
    for event in events:
        if event.offset > seconds + _ROUNDING:
            yield WHOLLY_PAST_END if event.onset >= seconds else PAST_END
