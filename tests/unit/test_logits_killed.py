"""Writing stored logits, killed at any moment: what counts as done is there and right."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

from c2ftool.data.logits import LogitsFile

WRITES = """
import os, signal, sys
import numpy as np
from c2ftool.data import logits_writer as w

clips, jobs = int(sys.argv[1]), sys.argv[2:]
call = calls = 0  # the step at which it is killed; the steps so far

def counted(real):
    def work(*given, **named):
        global calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)
    return work

for module, name in ((os, "pwrite"), (os, "fdatasync"), (os, "fsync"), (w, "write_atomically"), (w, "to_disk"),
                     (w.Path, "replace"), (w.Path, "unlink"), (w.Path, "mkdir")):
    setattr(module, name, counted(getattr(module, name)))

def session(path):
    ids = [f"c{n}" for n in range(clips)]
    with w.LogitsWriter(w.Path(path), ids, ["a", "b", "c"], 50, {"of": "this"}) as writer:
        print("resumed", writer.resumed, flush=True)
        todo, some = writer.todo(), max(2, clips // 300)
        for rows in np.split(todo, range(some, len(todo), some)):
            if len(rows):
                writer.write(rows, np.stack([np.full((3, 50), row % 512 + 0.25, np.float32) for row in rows]))
        writer.finish()
    print("calls", calls, flush=True)

for job in jobs:
    at, _, path = job.partition(":")
    call, child = int(at), os.fork() if len(jobs) > 1 else 0
    if not child:
        session(path)
        os._exit(0)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


def sessions(clips: int, *jobs: tuple[int, Path]) -> subprocess.Popen[str]:
    """A process that writes each file, killing itself before the step of that number; 0: it does not."""
    command = [sys.executable, "-c", WRITES, str(clips), *(f"{call}:{path}" for call, path in jobs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> list[tuple[str, int]]:
    """Its lines, each a word and a number."""
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return [(line.split()[0], int(line.split()[1])) for line in out.splitlines()]


def checked(path: Path) -> int:
    """Rows that count as done, of which each holds what it should."""
    partial, marks = path.with_name(path.name + ".partial"), path.with_name(path.name + ".partial.rows")
    if not partial.exists() or not marks.exists():
        return 0
    done = np.flatnonzero(np.frombuffer(marks.read_bytes(), np.uint8))
    made = LogitsFile.open(partial, unfinished=True).read(done)
    assert np.array_equal(made[:, 0, 0], done % 512 + 0.25) and (made == made[:, :1, :1]).all()
    return len(done)


def complete(path: Path, clips: int) -> bool:
    rows = np.arange(clips)
    with h5py.File(path) as file:
        made = file["strong_logits"][:]
        named = [name.decode() for name in file["filenames"]] == [f"c{n}" for n in rows]
    return named and np.array_equal(made, np.broadcast_to(rows[:, None, None] % 512 + 0.25, made.shape))


def test_a_kill_between_any_two_steps_loses_nothing_that_counts(tmp_path: Path) -> None:
    (_, resumed), (word, steps) = output(sessions(4, (0, tmp_path / "whole.h5")))
    assert resumed == 0 and word == "calls" and steps > 15 and complete(tmp_path / "whole.h5", 4)
    paths = [tmp_path / f"{call}.h5" for call in range(1, steps + 1)]
    ended = [number for word, number in output(sessions(4, *enumerate(paths, 1))) if word == "ended"]
    assert ended == [signal.SIGKILL] * steps
    begun = [path for path in paths if not path.exists()]  # the others were killed when they had their names
    counts = [checked(path) for path in begun]
    assert {0, 1, 2, 3, 4} == set(counts)
    lines = output(sessions(4, *((0, path) for path in begun)))
    assert [number for word, number in lines if word == "resumed"] == counts
    assert all(complete(path, 4) for path in paths)


def test_kills_at_random_moments_leave_every_counted_row_right(tmp_path: Path) -> None:
    path, clips, moments = tmp_path / "teacher.h5", 3000, random.Random(0)
    marks, before = path.with_name("teacher.h5.partial.rows"), 0
    for _ in range(3):
        process = sessions(clips, (0, path))
        assert process.stdout is not None and process.stdout.readline() == f"resumed {before}\n"
        while not path.exists() and clips - marks.read_bytes().count(0) <= before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        process.communicate()
        assert not path.exists(), "it was done before it was killed"
        done = checked(path)
        assert done > before
        before = done
    assert output(sessions(clips, (0, path)))[0] == ("resumed", before)
    assert complete(path, clips) and LogitsFile.open(path).record == {"of": "this"}
