"""Checks parity case files: python tests/parity/run.py FILE...

Prints the relative error of every output beside what is allowed, or why an output was skipped. Exit code 1 if an error
is too large, 2 for a file that cannot be read or whose kind is not known here, else 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cases import RUN, check
from tables import RUN_TABLES, kind_of

KNOWN = ", ".join([*RUN, *RUN_TABLES])


def main(files: list[str]) -> int:
    """The exit code."""
    if not files:
        print(f"usage: python {sys.argv[0]} FILE...\nkinds known: {KNOWN}", file=sys.stderr)
        return 2
    unknown = wrong = 0
    for file in files:
        try:
            case = json.loads(Path(file).read_text(encoding="utf-8"))
            kind = kind_of(case)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
            print(f"{file}: not a parity case ({type(fault).__name__}: {fault})", file=sys.stderr)
            unknown += 1
            continue
        if kind not in RUN and kind not in RUN_TABLES:
            print(f"{file}: unknown kind {kind!r}; known: {KNOWN}", file=sys.stderr)
            unknown += 1
            continue
        print(f"{file}: {kind}", flush=True)
        lines = check(case)
        width = max((len(line.output) for line in lines), default=0)
        for line in lines:
            wrong += line.wrong
            if line.skipped is not None:
                print(f"  {line.output:{width}} skipped: {line.skipped}", flush=True)
                continue
            verdict = "ok" if line.good else "TOO LARGE"
            print(f"  {line.output:{width}} {line.error:.2e}  allowed {line.allowed:.0e}  {verdict}", flush=True)
    return 2 if unknown else int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
