"""`c2f.json`: what a prepared set says of itself."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from c2ftool.data.coding import Coding
from c2ftool.data.decode import resampler
from c2ftool.data.shard import ShardReport
from c2ftool.data.sources.listing import Listing
from c2ftool.data.statistics import merged
from c2ftool.data.write import RECORD, VERSION, shard_name, write_hugging_face
from c2ftool.errors import DataError, MissingError
from c2ftool.files import sha256, write_json

_MISSING_SHOWN = 100
ANEW = "prepare the set again with --overwrite"


@dataclass(frozen=True)
class SetInfo:
    """The record of a prepared set.

    splits: clips by split. folds: the fold numbers, without 0. multi_label: some clip has not exactly one class.
    mean, std: of the default log-mel over the `measured` splits (see `statistics`), with `frames` counted.
    fingerprint: SHA-256 over the shards' hashes, in order.
    counts: clips by split and class number. seconds: of audio by split. rates: clips by the files' sample rates.
    missing: clips the metadata names and the folder lacks, by split, and the first hundred.
    handled, quarantine: how many clips (or events, where it says so) by rule, and the clips put aside with their
    reasons (see `decode` and `shard`).
    shards: file, rows, bytes and sha256 of each. sources: folder, metadata files with their hashes, and what else the
    layout records (`Listing.extra`).
    events: by split and class number, of the splits that have some; empty in sets prepared before it was recorded.
    """

    name: str
    layout: str
    version: int
    classes: list[str]
    sample_rate: int
    coding: Coding
    splits: dict[str, int]
    folds: list[int]
    multi_label: bool
    mean: float
    std: float
    frames: int
    measured: list[str]
    fingerprint: str
    resampler: str
    counts: dict[str, dict[str, int]]
    seconds: dict[str, float]
    rates: dict[str, int]
    missing: dict[str, Any]
    handled: dict[str, int]
    quarantine: list[dict[str, str]]
    notes: list[str]
    sources: dict[str, Any]
    shards: list[dict[str, Any]]
    events: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SetInfo:
        """The record of a `c2f.json`; raises KeyError or TypeError where a field is missing."""
        needed = [item.name for item in fields(cls) if item.default_factory is MISSING or item.name in values]
        return cls(**{name: values[name] for name in needed})


def write_record(
    folder: Path,
    name: str,
    listing: Listing,
    rate: int,
    coding: Coding,
    reports: Sequence[ShardReport],
    extra: dict[str, Any] | None = None,
) -> SetInfo:
    """Writes what stands beside the shards, `c2f.json` last, and returns the record.

    extra: more entries for `sources`. Raises DataError if no clip is left.
    """
    reports = sorted(reports, key=lambda report: report.index)
    shards: list[dict[str, Any]] = [
        {
            "file": shard_name(report.index, len(reports)),
            "rows": report.rows,
            "bytes": report.size,
            "sha256": report.sha256,
        }
        for report in reports
    ]
    put_aside = [asdict(item) for report in reports for item in report.put_aside]
    splits = _added(report.clips for report in reports)
    if not splits:
        reasons = Counter(item["reason"] for item in put_aside)
        raise DataError(
            f"none of the {len(put_aside)} clips can be used: "
            + ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())),
            place=str(listing.folder),
            cure=f"the first: {put_aside[0]['path']}: {put_aside[0]['reason']}: {put_aside[0]['detail']}",
        )
    order = list(dict.fromkeys(clip.split for clip in listing.clips))
    present = [split for split in order if split in splits]
    counts = {split: _added(report.classes.get(split, {}) for report in reports) for split in present}
    events = {split: _added(report.events.get(split, {}) for report in reports) for split in present}
    samples = _added(report.samples for report in reports)
    sums = merged(report.sums for report in reports)
    # six decimals: the last bits of a log-mel differ between processors
    mean, std = (round(value, 6) for value in sums.mean_std())
    info = SetInfo(
        name=name,
        layout=listing.layout,
        version=VERSION,
        classes=listing.classes,
        sample_rate=rate,
        coding=coding,
        splits={split: splits[split] for split in present},
        folds=sorted({fold for report in reports for fold in report.folds} - {0}),
        multi_label=any(number != 1 for report in reports for number in report.label_counts),
        mean=mean,
        std=std,
        frames=sums.frames,
        measured=list(listing.train_splits),
        fingerprint=hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest(),
        resampler=resampler(),
        counts={split: _by_number(counts[split]) for split in present},
        seconds={split: samples[split] / rate for split in present},
        rates=_by_number(_added(report.rates for report in reports)),
        missing={
            "count": len(listing.missing),
            "splits": dict(Counter(split for split, _ in listing.missing)),
            "first": [clip for _, clip in listing.missing[:_MISSING_SHOWN]],
        },
        handled=dict(sorted(_added(report.handled for report in reports).items())),
        quarantine=put_aside,
        notes=listing.notes,
        sources={
            "folder": str(listing.folder),
            "metadata": {name: sha256(listing.folder / name) for name in listing.metadata_files},
            **listing.extra,
            **(extra or {}),
        },
        shards=shards,
        events={split: _by_number(events[split]) for split in present if events[split]},
    )
    files = [shard["file"] for shard in shards]
    write_hugging_face(folder, name=name, classes=info.classes, rate=rate, shards=files, sha256=info.fingerprint)
    write_json(folder / RECORD, asdict(info))
    return info


def read_info(path: Path) -> SetInfo:
    """The record of the set in a folder, without opening its shards; MissingError or DataError."""
    record = path / RECORD
    if not record.is_file():
        raise MissingError("no prepared set here", place=str(path), cure="make one with `c2f prepare`")
    try:
        values: dict[str, Any] = json.loads(record.read_text("utf-8"))
        version = values["version"]
        if version != VERSION:
            raise DataError(f"format version {version}, and this c2ftool reads {VERSION}", place=str(record), cure=ANEW)
        return SetInfo.from_json(values)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"not the record of a prepared set ({error!r})", place=str(record), cure=ANEW) from error


def _added(counts: Any) -> dict[Any, int]:
    total: Counter[Any] = Counter()
    for part in counts:
        total.update(part)
    return dict(total)


def _by_number(counts: dict[int, int]) -> dict[str, int]:
    return {str(number): count for number, count in sorted(counts.items())}
