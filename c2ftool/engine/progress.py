"""What a person sees of a run, on stderr and in log.txt: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, TextIO

from c2ftool.files import translate_failure

_WARM = 10  # first steps of a session or phase that say nothing about speed
_EVERY = 10.0  # seconds between plain lines


class Progress:
    """Says how far a run is. quiet: only log.txt is written."""

    def __init__(self, log: Path | None, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._log: TextIO | None = None
        if log is not None:
            with translate_failure(log):
                self._log = log.open("a", encoding="utf-8")
        self._live: Any = None
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=100)  # seconds, waited, clips of a step
        self._seen = 0
        self._phase = ""
        self._said = 0.0

    def say(self, text: str) -> None:
        """A line for people."""
        if self._log is not None:
            with translate_failure(Path(self._log.name)):
                self._log.write(time.strftime("%Y-%m-%d %H:%M:%S ") + text + "\n")
                self._log.flush()
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def step(self, seconds: float, waited: float, clips: int) -> None:
        """Count a step towards the estimates."""
        self._seen += 1
        if self._seen > _WARM:
            self._recent.append((seconds, waited, clips))

    def show(self, phase: str, at: str, step: int, steps: int, left: int, values: dict[str, float]) -> None:
        """The state of the run: phase name and number, step of steps, steps left in the run, values."""
        if phase != self._phase:  # its steps cost something else
            self._phase, self._seen = phase, 0
            self._recent.clear()
        if self._quiet:
            return
        text = self._text(phase, at, step, steps, left, values)
        if self._stream.isatty():
            self._update(text)
        elif time.monotonic() - self._said > _EVERY or step == steps:
            self._said = time.monotonic()
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _text(self, phase: str, at: str, step: int, steps: int, left: int, values: dict[str, float]) -> str:
        shown = "  ".join(f"{name} {_number(value)}" for name, value in values.items())
        parts = [f"{phase} ({at})", f"step {step}/{steps}", shown]
        seconds = sum(s for s, _, _ in self._recent)
        if seconds > 0:
            clips = sum(c for _, _, c in self._recent)
            waited = sum(w for _, w, _ in self._recent)
            parts.append(f"{clips / seconds:.3g} clips/s")
            parts.append(f"waiting {waited / seconds:.0%}")
            parts.append(f"{_gigabytes():.2g} GB")
            parts.append(f"{_time(left * seconds / len(self._recent))} left")
        return "  ".join(parts)

    def _update(self, text: str) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self._stream), refresh_per_second=4, transient=True)
            self._live.start()
        from rich.text import Text

        self._live.update(Text(text, overflow="ellipsis", no_wrap=True))


def _number(value: float) -> str:
    return f"{value:.4g}"


def _time(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _gigabytes() -> float:
    """Memory in use: the GPU's where there is one, else the most this process has held."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
