"""Arguments and options that several commands share, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecArgument = Annotated[
    str, typer.Argument(metavar="SPEC", help="A spec: a path, or a name of `c2f specs ls`.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Values that replace the spec's, by dotted path: train.batch=48, phases.fine.length='3 epochs'.",
        show_default=False,
    ),
]
Run = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="Name of the run's folder; the spec's name if not given.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run where it was stopped; start it where there is none yet.")
]
Gpus = Annotated[
    int | None,
    typer.Option("--gpus", min=1, help="Processes to start with torchrun on this machine, one for each GPU."),
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        "--micro-batch",
        min=1,
        help="Clips per forward pass; the losses do not depend on it. Not with batch norm (htsat, cnn14).",
    ),
]
DeviceName = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda or cuda:N; the GPU if there is one.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan (phases, grids, steps, FLOPs, memory, data) and do nothing.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where in the code an error arose.")]


def data_root() -> Path:
    """Where prepared sets are: C2F_DATA, or `data`."""
    import os

    return Path(os.environ.get("C2F_DATA", "data"))


def runs_root() -> Path:
    """Where runs are: C2F_RUNS, or `runs`."""
    import os

    return Path(os.environ.get("C2F_RUNS", "runs"))
