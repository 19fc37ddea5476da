"""Opening a prepared set: columns in memory, audio on the memory map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from c2ftool.data.coding import HEADER, Int16, decode_flac
from c2ftool.data.demo import NAME as DEMO
from c2ftool.data.demo import build_demo
from c2ftool.data.record import ANEW, SetInfo, read_info
from c2ftool.data.write import RECORD, SCHEMA
from c2ftool.errors import DataError, MissingError

Int64 = npt.NDArray[np.int64]


class Events(NamedTuple):
    """A clip's events in stored order: onsets and offsets in seconds (float64), class numbers (int64)."""

    onset: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    label: Int64


class Ragged:
    """A list of int64 arrays kept as one: row r is `values[offsets[r] : offsets[r + 1]]`."""

    def __init__(self, values: Int64, offsets: Int64) -> None:
        self.values = values
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Int64:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[Int64]:
        return (self[row] for row in range(len(self)))

    def counts(self) -> Int64:
        """(N,) values in each row."""
        return np.diff(self.offsets)

    def gather(self, rows: Int64) -> tuple[Int64, Int64]:
        """(places in `rows`, values): all values of the rows, each with the place of its row."""
        starts, counts = self.offsets[rows], self.counts()[rows]
        places = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return places, self.values[np.repeat(starts, counts) + within]


class PreparedSet:
    """The clips of a prepared set, by row in stored order.

    info: its record. samples: (N,) int64. splits: (N,) of str. folds: (N,) int32, 0 where there is none. labels: class
    numbers of each row.
    """

    def __init__(self, path: Path, info: SetInfo, batches: list[pa.RecordBatch]) -> None:
        self.path = path
        self.info = info
        self._batches = batches
        sizes = [batch.num_rows for batch in batches]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        light = [name for name in SCHEMA.names if name != "audio"]
        self._table = pa.Table.from_batches(
            [batch.select(light) for batch in batches], SCHEMA.empty_table().select(light).schema
        )
        self.samples: Int64 = self._table.column("samples").to_numpy()
        self.folds: npt.NDArray[np.int32] = self._table.column("fold").to_numpy()
        coded = self._table.column("split").combine_chunks().dictionary_encode()
        self._split_names: list[str] = coded.dictionary.to_pylist()
        self._split_codes = coded.indices.to_numpy()
        self.splits: npt.NDArray[np.str_] = np.array(self._split_names, dtype=np.str_)[self._split_codes]
        labels = self._table.column("labels").combine_chunks()
        self.labels = Ragged(labels.values.to_numpy(), labels.offsets.to_numpy().astype(np.int64))
        events = self._table.column("events").combine_chunks()
        self._event_offsets = events.offsets.to_numpy()
        self._event_values = tuple(events.values.field(name).to_numpy() for name in Events._fields)
        self._payloads = [_payload(batch) for batch in batches]

    @classmethod
    def open(cls, path: Path) -> PreparedSet:
        """The set in a folder; raises MissingError where there is none, DataError where it cannot be used."""
        info = read_info(path)
        batches: list[pa.RecordBatch] = []
        for shard in info.shards:
            batches += _read_shard(path / shard["file"], shard)
        prepared = cls(path, info, batches)
        if len(prepared.labels.values) and (top := int(prepared.labels.values.max())) >= len(info.classes):
            raise DataError(f"class number {top} of {len(info.classes)} classes", place=str(path), cure=ANEW)
        return prepared

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def ids(self) -> list[str]:
        """The clips' names, in stored order."""
        return self._table.column("id").to_pylist()

    def rows(self, splits: Sequence[str], *, fold: int | None = None, hold_out: bool = False) -> Int64:
        """The row numbers of some splits, in stored order.

        fold: without the clips of this fold, or with `hold_out` only those. Raises DataError, naming what there is, for
        a split or fold that the set does not have.
        """
        unknown = [split for split in splits if split not in self.info.splits]
        if unknown:
            raise DataError(
                f"{self.info.name} has no split {', '.join(unknown)}",
                place=str(self.path),
                cure=f"its splits: {', '.join(self.info.splits)}",
            )
        if fold is not None and fold not in self.info.folds:
            raise DataError(
                f"{self.info.name} has no fold {fold}",
                place=str(self.path),
                cure=f"its folds: {', '.join(map(str, self.info.folds))}" if self.info.folds else "it has no folds",
            )
        chosen = np.isin(self._split_codes, [self._split_names.index(split) for split in splits])
        if fold is not None:
            chosen &= (self.folds == fold) == hold_out
        return np.flatnonzero(chosen)

    def waveform(self, row: int) -> Int16:
        """(samples,) int16 of a clip; of a WAV set a read-only view of the memory map."""
        batch = int(np.searchsorted(self._starts, row, side="right")) - 1
        if not 0 <= row < len(self):
            raise IndexError(row)
        data, offsets = self._payloads[batch]
        place = row - int(self._starts[batch])
        start, stop = int(offsets[place]), int(offsets[place + 1])
        count = int(self.samples[row])
        if self.info.coding == "wav":
            if stop - start != HEADER + 2 * count:
                raise self._damaged(row)
            return np.frombuffer(data, "<i2", count, start + HEADER)
        try:
            samples = decode_flac(memoryview(data)[start:stop].tobytes())
        except RuntimeError as error:
            raise self._damaged(row) from error
        if len(samples) != count:
            raise self._damaged(row)
        return samples

    def targets(self, rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(len(rows), classes) float32: 1 for each class of the row, else 0."""
        chosen = np.asarray(rows, dtype=np.int64)
        targets = np.zeros((len(chosen), len(self.info.classes)), np.float32)
        places, labels = self.labels.gather(chosen)
        targets[places, labels] = 1.0
        return targets

    def multi_label(self, rows: npt.ArrayLike) -> bool:
        """Whether some of the rows have not exactly one class."""
        return bool((self.labels.counts()[np.asarray(rows, dtype=np.int64)] != 1).any())

    def events(self, row: int) -> Events:
        """The events of a clip; none where the set has clip labels only."""
        part = slice(*self._event_offsets[row : row + 2])
        return Events(*(values[part] for values in self._event_values))

    def events_of(self, rows: npt.ArrayLike) -> tuple[Int64, Events]:
        """(places in `rows`, events): all events of the rows, each with the place of its row."""
        chosen = np.asarray(rows, dtype=np.int64)
        offsets = self._event_offsets.astype(np.int64)
        starts, counts = offsets[chosen], offsets[chosen + 1] - offsets[chosen]
        places = np.repeat(np.arange(len(chosen)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        index = np.repeat(starts, counts) + within
        return places, Events(*(values[index] for values in self._event_values))

    def _damaged(self, row: int) -> DataError:
        return DataError(f"clip {self.ids[row]} is damaged", place=str(self.path), cure=ANEW)


def _read_shard(path: Path, shard: dict[str, Any]) -> list[pa.RecordBatch]:
    """The record batches of a shard on its memory map."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"shard is gone ({error.strerror})", place=str(path), cure=ANEW) from error
    if size != shard["bytes"]:
        raise DataError(f"shard has {size} bytes and should have {shard['bytes']}", place=str(path), cure=ANEW)
    try:
        # closing gives the file handle back; the map lives as long as the batches
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            if not reader.schema.equals(SCHEMA):
                raise DataError("shard has other columns than this version writes", place=str(path), cure=ANEW)
            batches = list(reader)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"shard cannot be read ({error})", place=str(path), cure=ANEW) from error
    if sum(batch.num_rows for batch in batches) != shard["rows"]:
        raise DataError(f"shard does not hold its {shard['rows']} clips", place=str(path), cure=ANEW)
    return batches


def _payload(batch: pa.RecordBatch) -> tuple[pa.Buffer, npt.NDArray[np.int32]]:
    """(bytes of all clips, their offsets) of a batch, on the memory map."""
    column = batch.column("audio").field("bytes")
    _, offsets, data = column.buffers()
    return data, np.frombuffer(offsets, np.int32, len(column) + 1)


def find_set(name: str, root: Path) -> Path:
    """The folder of the set of that name under `root`, or at that path.

    `demo` is generated on first use. Raises MissingError with the command that prepares a set and the sets that exist.
    """
    if name == DEMO:
        return build_demo(root)
    for path in (root / name, Path(name)):
        if (path / RECORD).is_file():
            return path
    unfinished = (root / f"{name}.partial").is_dir()
    raise MissingError(
        f"no prepared set {name}" + (f"; {name}.partial was begun and not finished" if unfinished else ""),
        place=str(root),
        cure=f"make it with `c2f prepare LAYOUT --from DIR --name {name}`; there are: "
        + ", ".join([*prepared_sets(root), DEMO]),
    )


def prepared_sets(root: Path) -> list[str]:
    """The names of the sets under the root without the demo, sorted."""
    names = (path.parent.name for path in root.glob(f"*/{RECORD}")) if root.is_dir() else ()
    return sorted(name for name in names if not name.endswith(".partial") and name != DEMO)
