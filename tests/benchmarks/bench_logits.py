"""Reading stored logits of 10-s clips, 447 classes x 250 frames, in random order: one JSON line for each way.

`c2f` is `LogitsFile` on the published layout in one piece, `c2f_gzip` on a compressed copy; `memmap` and `h5py` read
the same rows of the first file with NumPy's memory map and with h5py, and look for logits that are not finite as
`LogitsFile` does. Each runs in a process of its own. `warm` is with the file in the system's memory, `cold` after that
was told to drop it; microseconds per clip, medians over batches. `resident_mb` is by how much the process grew while it
read every clip of the file.

    python tests/benchmarks/bench_logits.py [--clips 1500] [--batch 32] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from c2ftool.data.logits import STRONG, LogitsFile
from c2ftool.data.logits_writer import LogitsWriter

CLASSES, FRAMES = 447, 250
Read = Callable[[NDArray[np.int64]], NDArray[np.float16]]


def reader(way: str, path: Path) -> Read:
    """(B, classes, frames) of rows."""
    if way.startswith("c2f"):
        return LogitsFile.open(path).read
    if way == "h5py":
        dataset = h5py.File(path, "r")[STRONG]

        def rows_of(rows: NDArray[np.int64]) -> NDArray[np.float16]:
            return checked(np.stack([dataset[row] for row in rows]))

        return rows_of
    with h5py.File(path, "r") as file:
        shape, offset = file[STRONG].shape, file[STRONG].id.get_offset()
    mapped = np.memmap(path, np.float16, "r", offset, shape)
    return lambda rows: checked(mapped[rows])


def checked(made: NDArray[np.float16]) -> NDArray[np.float16]:
    if any(int(np.bitwise_and(row.view(np.uint16), 0x7C00).max()) == 0x7C00 for row in made):
        raise SystemExit("logits are not finite")
    return made


def measured(way: str, path: Path, clips: int, batch: int) -> dict[str, object]:
    """The figures of one way, in a new process."""
    order = np.random.default_rng(0).permutation(clips)
    batches = [order[start : start + batch] for start in range(0, clips - batch + 1, batch)]
    warm, cold = [], []
    read = reader(way, path)
    read(batches[0])  # what is made once
    before = resident()
    for rows in [*batches, *batches]:
        warm.append(timed(read, rows))
    grown = resident() - before
    for rows in batches[:20]:
        del read  # what is mapped is not dropped
        forget(path)
        read = reader(way, path)
        cold.append(timed(read, rows))
    return {
        "benchmark": "logits of a clip",
        "way": way,
        "warm_us": round(statistics.median(warm[len(batches) :]) / batch * 1e6, 1),
        "cold_us": round(statistics.median(cold) / batch * 1e6, 1),
        "resident_mb": round(grown / 1e6, 1),
        "file_mb": round(path.stat().st_size / 1e6),
    }


def timed(read: Read, rows: NDArray[np.int64]) -> float:
    start = time.perf_counter()
    read(rows)
    return time.perf_counter() - start


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def forget(path: Path) -> None:
    """Ask the system to drop its copy of the file; what a process has mapped stays."""
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def written(folder: Path, clips: int, batch: int) -> tuple[Path, Path, float]:
    """(the file, its compressed copy, seconds that writing the first took)."""
    path, packed = folder / "teacher.h5", folder / "packed.h5"
    ids, classes = [f"Y{n}" for n in range(clips)], [f"class {n}" for n in range(CLASSES)]
    generator, seconds = np.random.default_rng(0), 0.0
    with LogitsWriter(path, ids, classes, FRAMES, {}) as writer:
        for rows in np.split(np.arange(clips), range(batch, clips, batch)):
            logits = generator.standard_normal((len(rows), CLASSES, FRAMES), np.float32)
            start = time.perf_counter()
            writer.write(rows, logits)
            seconds += time.perf_counter() - start
        writer.finish()
    with h5py.File(path) as file, h5py.File(packed, "w") as copy:
        file.copy("filenames", copy)
        copy.create_dataset(STRONG, file[STRONG].shape, np.float16, chunks=(1, CLASSES, FRAMES), compression=1)
        for row in range(clips):
            copy[STRONG][row] = file[STRONG][row]
    return path, packed, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="On the disk to measure; the system's for temporary files if not.")
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        path, packed, seconds = written(Path(name), given.clips, given.batch)
        writing = {"benchmark": "writing logits of a clip, flushed", "us": round(seconds / given.clips * 1e6, 1)}
        print(json.dumps(writing), flush=True)
        for way in ("c2f", "memmap", "h5py", "c2f_gzip"):
            file = packed if way == "c2f_gzip" else path
            with spawn.Pool(1) as pool:
                print(json.dumps(pool.apply(measured, (way, file, given.clips, given.batch))), flush=True)


if __name__ == "__main__":
    main()
