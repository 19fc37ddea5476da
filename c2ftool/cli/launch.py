"""`--gpus N`: this command again, N times, under torchrun."""

from __future__ import annotations

import os
import sys


def relaunch(processes: int) -> None:
    """Replace this process by torchrun with the same command in `processes` ranks; does not return.

    torchrun must be told to pass the scheduler's signals on (SIGUSR1 would end it, and nothing would be saved). It
    reports any rank's failure as 1: the run folder's `interrupted.json` says whether the state was saved.
    """
    arguments: list[str] = []
    skip = False
    for word in sys.argv[1:]:
        if skip:
            skip = False
        elif word == "--gpus":
            skip = True
        elif not word.startswith("--gpus="):
            arguments.append(word)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    signals = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    # without `--` torchrun would take our --run for an abbreviation of its own --run-path
    os.execv(sys.executable, [*launcher, signals, "-m", "--", "c2ftool", *arguments])
