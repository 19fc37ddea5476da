"""`c2f evaluate`: scores, tables and pictures of finished runs."""

from __future__ import annotations

from typing import Annotated

import typer

from c2ftool.cli.options import DeviceName, Json, Traceback


def evaluate(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]... [KEY=VALUE]...", help="Runs to score; the newest finished one if none is named."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="A metric; may be given several times.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", metavar="WHICH", help="average, best, last, or a phase; as the run chose if not given."
        ),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option("--expect", metavar="TEST", help='Fail unless it holds: --expect "accuracy>=0.9".'),
    ] = None,
    device: DeviceName = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Score the test clips of finished runs again and write their reports; several runs make one table.

    data.* and compression.* score other clips, or at another compression, into a report of their own; savings.* compare
    with another baseline.

    \b
    c2f evaluate --metric accuracy
    c2f evaluate eat-finetune eat-scratch --metric accuracy --metric map
    c2f evaluate eat-finetune data.test=[valid] --expect "accuracy>=0.8"
    c2f evaluate coarse-to-fine "compression={method: fshift, factor: 2}"
    """
    from c2ftool.cli import verdicts
    from c2ftool.cli.options import data_root, runs_root
    from c2ftool.engine.rescore import rescore_all

    words = runs or []
    names = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    demands = [verdicts.read_demand(text) for text in expect or []]
    scored = rescore_all(
        names,
        runs_root=runs_root(),
        data_root=data_root(),
        metrics=metric,
        weights=weights,
        overrides=overrides,
        device=device,
        say=lambda text: typer.echo(text, err=True),
    )
    verdicts.print_scored(scored, json)
    verdicts.require(demands, scored)
