"""`c2f flops`: what a spec costs, counted before it runs."""

from __future__ import annotations

from c2ftool.cli.options import Json, Overrides, SpecArgument, Traceback


def flops(
    spec: SpecArgument,
    overrides: Overrides = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """FLOPs per clip, phase and run, counted on the meta device; the front end is named separately.

    \b
    c2f flops specs/eat.yaml
    c2f flops specs/eat.yaml phases.coarse.compression.factor=4 --json
    """
    from c2ftool.cli import results
    from c2ftool.cli.options import data_root, runs_root
    from c2ftool.engine.train import Options, plan
    from c2ftool.spec.load import load_spec

    loaded = load_spec(spec, overrides or [])
    options = Options(data_root=data_root(), runs_root=runs_root())
    results.print_cost(plan(loaded, options), json)
