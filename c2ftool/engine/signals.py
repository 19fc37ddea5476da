"""Asking a run to stop: SIGTERM, SIGUSR1, SIGUSR2 (a scheduler) and Ctrl-C (a person).

A handler only sets a flag; the loop reads it at a step boundary, where the state can be saved (saving inside a handler
collides with whatever the process is doing). A second Ctrl-C stops at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

PREEMPTED, BY_HAND = 1, 2


class StopFlag:
    """Installed for the time of a `with` block; `asked` is 0, PREEMPTED or BY_HAND."""

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *details: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.asked == BY_HAND:
                raise KeyboardInterrupt
            self.asked = BY_HAND
        else:
            self.asked = PREEMPTED
