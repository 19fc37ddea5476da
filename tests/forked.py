"""Runs `c2f` in a process of its own, forked from one that has imported torch: seconds less for each of some 200 calls.

Started as `python forked.py`, it reads one JSON object per line (arguments, environment, folder, files for stdout and
stderr), forks, answers with the process's number, then with its exit code. `run` is the other side.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

_LOCK = threading.Lock()
_SERVER: list[subprocess.Popen[str]] = []


def run(arguments: list[str], env: dict[str, str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    """The finished command; as `subprocess.run` with captured text."""
    with _LOCK, tempfile.TemporaryDirectory() as folder:
        if not _SERVER or _SERVER[0].poll() is not None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            ours = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
            _SERVER[:] = [subprocess.Popen([sys.executable, __file__], env=ours, text=True, **pipes)]
            atexit.register(_end, _SERVER[0])
        server, out, err = _SERVER[0], Path(folder, "out"), Path(folder, "err")
        request = {"arguments": arguments, "env": env, "cwd": str(cwd), "out": str(out), "err": str(err)}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        number = int(server.stdout.readline())
        alarm = threading.Timer(timeout, lambda: os.killpg(number, 9))
        alarm.start()
        code = int(server.stdout.readline())
        late = not alarm.is_alive()
        alarm.cancel()
        texts = [path.read_text(errors="replace") for path in (out, err)]
    if late and code == -9:
        raise subprocess.TimeoutExpired(["c2f", *arguments], timeout, *texts)
    return subprocess.CompletedProcess(["c2f", *arguments], code, *texts)


def _end(server: subprocess.Popen[str]) -> None:
    server.communicate()  # it ends with its input


def _serve() -> None:
    import torch._dynamo  # noqa: F401

    import c2ftool.cli.results
    import c2ftool.engine.rescore
    import c2ftool.engine.train  # noqa: F401  all that is slow to import, before any thread is started

    for line in sys.stdin:
        request = json.loads(line)
        number = os.fork()
        if number == 0:
            _become(request)
        print(number, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)


def _become(request: dict[str, object]) -> None:
    """Be `python -m c2ftool ARGUMENTS`; does not come back."""
    code = 1
    try:
        os.setsid()
        os.chdir(str(request["cwd"]))
        os.environ.clear()
        os.environ.update(request["env"])  # type: ignore[call-overload]
        nothing = os.open(os.devnull, os.O_RDONLY)
        files = [os.open(str(request[key]), os.O_WRONLY | os.O_CREAT) for key in ("out", "err")]
        for there, here in zip((nothing, *files), (0, 1, 2), strict=True):
            os.dup2(there, here)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        sys.argv = ["c2f", *request["arguments"]]  # type: ignore[misc]

        from c2ftool.cli.main import main

        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            import traceback

            traceback.print_exc()
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
