"""`c2f flops`: what a spec costs, counted before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from c2ftool.cli.options import DeviceName, Json, Overrides, SpecArgument, Traceback


def flops(
    spec: SpecArgument,
    overrides: Overrides = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", metavar="SPEC", help="Compare with this spec, or run:NAME; the spec's own if it has."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the cost over the epochs, as a PNG.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time real steps of each phase on this machine as well.")
    ] = False,
    device: DeviceName = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """FLOPs per clip, phase and run, counted on the meta device; the front end is named separately.

    \b
    c2f flops specs/eat.yaml
    c2f flops specs/coarse_to_fine.yaml phases.coarse.compression.factor=2 --json
    c2f flops specs/papers/coarse_to_fine/vggsound.yaml --baseline papers/coarse_to_fine/vggsound_baseline
    c2f flops specs/coarse_to_fine.yaml --measure --plot cost.png
    """
    import sys

    from c2ftool.cli import costs
    from c2ftool.cli.options import data_root, runs_root
    from c2ftool.engine.plan import cost_plan, planned_savings
    from c2ftool.engine.train import Options
    from c2ftool.errors import UsageError
    from c2ftool.spec.load import load_spec

    if device is not None and not measure:
        raise UsageError("--device is where steps are timed", cure="Add --measure.")
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {str(plot)!r}: the picture is a PNG", cure="Name a file that ends in .png.")
    loaded = load_spec(spec, overrides or [])
    options = Options(data_root=data_root(), runs_root=runs_root())
    planned = cost_plan(loaded, options)
    compared = None
    if baseline is not None or loaded.spec.savings is not None:
        compared = planned_savings(loaded, planned, baseline, options)
    timed = None
    if measure:
        from c2ftool.engine.device import open_device
        from c2ftool.engine.measure import measure as time_steps
        from c2ftool.engine.train import loader_threads

        opened = open_device(device, planned.resolved.precision, planned.resolved.compile)
        threads = loader_threads(planned.resolved, opened)
        steps, rate = time_steps(planned, opened, threads, lambda text: print(text, file=sys.stderr))
        timed = costs.Timed(steps, rate, opened.name())
    if plot is not None:
        costs.draw(plot, planned, compared)
    costs.print_all(planned, compared, timed, json)
