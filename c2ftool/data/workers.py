"""Worker processes that may die: shards are tried again, and a file that kills its reader is found and put aside.

When a worker dies, `concurrent.futures` fails every task of its pool. The pool is built anew and the shards that were
in flight are tried again; a shard that was lost twice runs alone, and if it is lost then too, halves of it are probed
until the clips at fault are found. A clip is at fault when it alone brings a worker down twice.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import TracebackType

from c2ftool.data.shard import ShardReport, ShardTask
from c2ftool.errors import RunError

Work = Callable[[ShardTask], ShardReport]
Probe = Callable[[ShardTask], None]
_LOSSES = 2
_LOST_ALONE = 6


class Workers:
    """A pool of `jobs` processes that survives the death of any of them.

    work: writes a shard. probe: reads a task's clips and writes nothing. Both must be importable by name.
    """

    def __init__(self, work: Work, probe: Probe, jobs: int) -> None:
        self._work = work
        self._probe = probe
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # after Ctrl-C at once; after a fault (a full disk) the others end by themselves and clean up behind them
        self._close(hard=isinstance(error, KeyboardInterrupt))

    def run(self, tasks: Sequence[ShardTask], done: Callable[[ShardReport], None]) -> None:
        """Works the tasks off and hands each report to `done`, in the order of finishing."""
        waiting = deque(tasks)
        running: dict[Future[ShardReport], ShardTask] = {}
        losses: Counter[int] = Counter()
        while waiting or running:
            lost: list[ShardTask] = []
            while waiting and len(running) < self._jobs:
                task = waiting.popleft()
                try:
                    running[self._open(self._jobs).submit(self._work, task)] = task
                except BrokenProcessPool:
                    lost.append(task)
                    break
            finished = wait(running, timeout=0 if lost else None, return_when=FIRST_COMPLETED).done
            for future in finished:
                task = running.pop(future)
                try:
                    done(future.result())
                except BrokenProcessPool:
                    lost.append(task)
            if lost:
                lost += running.values()
                running.clear()
                self._close(hard=True)
                losses.update(task.index for task in lost)
                for task in lost:
                    if losses[task.index] >= _LOSSES:
                        done(self._alone(task))
                    else:
                        waiting.append(task)

    def _alone(self, task: ShardTask) -> ShardReport:
        """The report of a shard that was lost repeatedly, without the clips that are at fault."""
        for _ in range(_LOST_ALONE):
            try:
                report = self._open(1).submit(self._work, task).result()
            except BrokenProcessPool:
                self._close(hard=True)
            else:
                self._close(hard=False)
                return report
            places = tuple(place for place in range(len(task.clips)) if place not in task.killers)
            task = replace(task, killers=task.killers | self._killers(task, places))
        raise RunError(
            f"the worker of shard {task.index} was killed {_LOST_ALONE} times and no clip is at fault",
            cure="most likely memory ran out: give fewer --jobs; finished shards are kept",
        )

    def _killers(self, task: ShardTask, places: tuple[int, ...]) -> frozenset[int]:
        """The places of the clips that bring a worker down, by halving."""
        if not self._kills(task, places):
            return frozenset()
        if not places:
            raise RunError(
                "worker processes die before they read anything",
                cure="check memory limits, and that `python -c 'import torch, soundfile'` runs",
            )
        if len(places) == 1:
            # one death may be anybody's (an impatient administrator, memory); two in the same clip are its own
            empty_is_well = not self._killers(task, ())
            return frozenset(places) if empty_is_well and self._kills(task, places) else frozenset()
        half = len(places) // 2
        return self._killers(task, places[:half]) | self._killers(task, places[half:])

    def _kills(self, task: ShardTask, places: tuple[int, ...]) -> bool:
        try:
            self._open(1).submit(self._probe, task.narrowed(places)).result()
        except BrokenProcessPool:
            self._close(hard=True)
            return True
        return False

    def _open(self, jobs: int) -> ProcessPoolExecutor:
        if self._pool is None:
            # spawn: a fork of a process that has run torch or has threads may hang
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent)
        return self._pool

    def _close(self, hard: bool) -> None:
        """Ends the pool; hard: without waiting for tasks in flight."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        if hard:
            for process in list((pool._processes or {}).values()):
                process.kill()
        try:
            pool.shutdown(wait=True, cancel_futures=True)
        except RuntimeError:  # Ctrl-C came while the pool was starting its own thread: there is none to wait for
            if not hard:
                raise


def _end_with_parent() -> None:
    """Ends this worker when its parent is gone, however it went: a killed `prepare` leaves no process behind.

    Ctrl-C at a terminal reaches every process; it is the parent's to answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
