"""What a person reads: a live line on a terminal, plain lines elsewhere, and everything said in log.txt."""

from __future__ import annotations

import io
import re

import pytest

from c2ftool.engine import progress as module
from c2ftool.engine.progress import Progress
from c2ftool.errors import RunError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def steps(progress: Progress, count: int, seconds: float, waited: float = 0.0, clips: int = 8) -> None:
    for _ in range(count):
        progress.step(seconds, waited, clips)


def test_a_plain_line_says_all(tmp_path):
    stream = io.StringIO()
    progress = Progress(None, stream=stream)
    progress.show("fine", "2/3", 0, 40, 140, {})
    stream.truncate(0)
    steps(progress, 30, 0.5, waited=0.1)
    progress.show("fine", "2/3", 40, 40, 100, {"loss": 0.51234567, "lr": 5e-4})
    (line,) = stream.getvalue().strip("\x00").splitlines()
    said = ("fine (2/3)", "step 40/40", "loss 0.5123", "lr 0.0005", "16 clips/s", "waiting 20%", "0:50 left")
    assert all(part in line for part in said), line
    assert re.search(r"[\d.]+ GB", line)


def test_the_first_ten_steps_do_not_count():
    progress = Progress(None, stream=io.StringIO())
    text = progress._text("fine", "1/1", 9, 99, 90, {})
    steps(progress, 10, 100.0)
    assert progress._text("fine", "1/1", 9, 99, 90, {}) == text and "left" not in text
    steps(progress, 5, 1.0)
    assert "1:30 left" in progress._text("fine", "1/1", 9, 99, 90, {})


def test_a_new_phase_is_estimated_anew():
    progress = Progress(None, stream=io.StringIO())
    progress.show("coarse", "1/2", 1, 99, 300, {})
    steps(progress, 50, 1.0)
    assert "left" in progress._text("coarse", "1/2", 50, 99, 250, {})
    progress.show("fine", "2/2", 1, 99, 99, {})
    steps(progress, 10, 4.0)
    assert "left" not in progress._text("fine", "2/2", 11, 99, 88, {})
    steps(progress, 1, 4.0)
    assert "5:48 left" in progress._text("fine", "2/2", 12, 99, 87, {})


def test_plain_lines_are_few(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(None, stream=stream)
    for step in range(1, 501):
        now[0] += 0.1
        progress.show("only", "1/1", step, 500, 500 - step, {})
    lines = stream.getvalue().splitlines()
    assert 5 <= len(lines) <= 6, "one in ten seconds and the last"
    assert "step 500/500" in lines[-1]


def test_a_terminal_gets_one_line_that_changes(tmp_path):
    stream = Terminal()
    progress = Progress(tmp_path / "log.txt", stream=stream)
    progress.show("only", "1/1", 1, 9, 8, {"loss": 1.5})
    progress.say("valid [bold]accuracy[/bold] 0.5")
    progress.show("only", "1/1", 2, 9, 7, {"loss": 1.25})
    progress.close()
    shown = stream.getvalue()
    assert "loss 1.25" in shown and "\x1b[" in shown
    assert "valid [bold]accuracy[/bold] 0.5" in shown, "brackets are text, not markup"
    assert shown.endswith("\x1b[?25h") or "\x1b[?25h" in shown, "the cursor is back"


def test_what_is_said_is_in_the_log_also_when_quiet(tmp_path):
    stream = io.StringIO()
    for word in ("first", "second"):
        progress = Progress(tmp_path / "log.txt", quiet=True, stream=stream)
        progress.say(f"{word} session")
        progress.show("only", "1/1", 9, 9, 0, {})
        progress.close()
        progress.close()
    assert stream.getvalue() == ""
    first, second = (tmp_path / "log.txt").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d first session", first)
    assert second.endswith("second session")


def test_a_log_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        Progress(tmp_path / "file" / "log.txt")
