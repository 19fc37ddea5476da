"""Runs `c2f` commands as children of a warm process and kills them, so that a test can afford many kills.

    python kill.py random COUNT SEED -- c2f arguments     kill COUNT times at random moments, then let it finish
    python kill.py at STEPS -- c2f arguments              kill when metrics.jsonl (path in C2F_WATCH) reaches each step

The command must contain --resume. Prints how many kills there were; exits with the last child's code.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch  # noqa: F401 - imported once, before forking

import c2ftool.cli.results
import c2ftool.engine.rescore  # noqa: F401
from c2ftool.cli.main import main


def start(arguments: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    sys.argv = ["c2f", *arguments]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def steps_logged() -> int:
    path = Path(os.environ["C2F_WATCH"])
    lines = path.read_text().splitlines() if path.exists() else []
    return sum('"kind": "train"' in line for line in lines)


def run(arguments: list[str], enough) -> int | None:
    """Run until `enough()` says to kill; the exit code, or None if killed."""
    pid = start(arguments)
    while (code := ended(pid)) is None:
        if enough():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.002)
    return code


def main_loop() -> int:
    split = sys.argv.index("--")
    mode, *words = sys.argv[1:split]
    arguments = sys.argv[split + 1 :]
    kills = 0
    if mode == "random":
        rng = random.Random(int(words[1]))
        while kills < int(words[0]):
            deadline = time.monotonic() + rng.uniform(0.05, 1.2)
            if run(arguments, lambda d=deadline: time.monotonic() > d) is not None:
                break
            kills += 1
    else:
        for step in map(int, words[0].split(",")):
            if run(arguments, lambda s=step: steps_logged() >= s) is not None:
                break
            kills += 1
    code = run(arguments, lambda: False)
    print(f"kills: {kills}")
    return code if code is not None else 1


if __name__ == "__main__":
    sys.exit(main_loop())
