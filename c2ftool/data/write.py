"""The format of a prepared set, and the files that make one.

    data-00000-of-000NN.arrow ..  Arrow IPC streams: the clips in stored order
    dataset_info.json, state.json what `datasets.load_from_disk` reads
    c2f.json                      what c2ftool reads; written last, so that a set without it is no set

Columns: id, audio {bytes, path}, samples, split, fold (0: none), labels, events [{onset s, offset s, label}].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from c2ftool.data.files import written_whole
from c2ftool.data.sources.listing import ClipRef
from c2ftool.files import write_json

VERSION = 1
RECORD = "c2f.json"
_BATCH_BYTES = 256 << 20  # binary columns count in 31 bits; a batch in memory stays well below

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("samples", pa.int64()),
        ("split", pa.string()),
        ("fold", pa.int32()),
        ("labels", pa.list_(pa.int64())),
        (
            "events",
            pa.list_(pa.struct([("onset", pa.float64()), ("offset", pa.float64()), ("label", pa.int64())])),
        ),
    ]
)


def shard_name(index: int, shards: int) -> str:
    """The file name of a shard."""
    return f"data-{index:05d}-of-{shards:05d}.arrow"


@dataclass
class Rows:
    """Clips on their way into a record batch."""

    clips: list[ClipRef] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)

    def append(self, clip: ClipRef, payload: bytes, samples: int) -> None:
        self.clips.append(clip)
        self.payloads.append(payload)
        self.samples.append(samples)

    def batch(self) -> pa.RecordBatch:
        """The record batch of the rows."""
        return pa.RecordBatch.from_pydict(
            {
                "id": [clip.id for clip in self.clips],
                "audio": pa.StructArray.from_arrays(
                    [pa.array(self.payloads, pa.binary()), pa.array([clip.path for clip in self.clips], pa.string())],
                    fields=list(SCHEMA.field("audio").type),
                ),
                "samples": self.samples,
                "split": [clip.split for clip in self.clips],
                "fold": [clip.fold for clip in self.clips],
                "labels": [list(clip.labels) for clip in self.clips],
                "events": [[vars(event) for event in clip.events] for clip in self.clips],
            },
            schema=SCHEMA,
        )


class ShardWriter:
    """Writes one shard; the file appears under its name when `with` ends well.

    size, sha256: of the finished file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.size = 0
        self.sha256 = ""
        self._pending = Rows()
        self._bytes = 0

    def __enter__(self) -> ShardWriter:
        self._whole = written_whole(self.path)
        self._file = self._whole.__enter__()
        self._stream = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), SCHEMA)
        return self

    def append(self, clip: ClipRef, payload: bytes, samples: int) -> None:
        """Adds a clip with its coded samples."""
        if self._bytes + len(payload) > _BATCH_BYTES:
            self._flush()
        self._pending.append(clip, payload, samples)
        self._bytes += len(payload)

    def __exit__(self, *failure: Any) -> None:
        if failure[0] is None:
            self._flush()
            self._stream.close()
            self.size, self.sha256 = self._file.size, self._file.hexdigest()
        self._whole.__exit__(*failure)

    def _flush(self) -> None:
        if self._pending.clips:
            self._stream.write_batch(self._pending.batch())
            self.rows += len(self._pending.clips)
        self._pending, self._bytes = Rows(), 0


def write_hugging_face(
    folder: Path, *, name: str, classes: list[str], rate: int, shards: list[str], sha256: str
) -> None:
    """Writes the two files by which `datasets.load_from_disk` opens the folder.

    Audio is declared with `decode` off: reading needs no audio library, and `cast_column("audio", Audio())` decodes.
    """

    def value(dtype: str) -> dict[str, str]:
        return {"dtype": dtype, "_type": "Value"}

    label = {"names": classes, "_type": "ClassLabel"} if classes else value("int64")
    features = {
        "id": value("string"),
        "audio": {"sampling_rate": rate, "decode": False, "_type": "Audio"},
        "samples": value("int64"),
        "split": value("string"),
        "fold": value("int32"),
        "labels": {"feature": label, "_type": "Sequence"},
        "events": [{"onset": value("float64"), "offset": value("float64"), "label": label}],
    }
    write_json(
        folder / "dataset_info.json",
        {"citation": "", "dataset_name": name, "description": "", "features": features, "homepage": "", "license": ""},
    )
    write_json(
        folder / "state.json",
        {
            "_data_files": [{"filename": shard} for shard in shards],
            "_fingerprint": sha256[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        },
    )
