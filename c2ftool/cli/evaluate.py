"""`c2f evaluate`: scores, tables and pictures of finished runs."""

from __future__ import annotations

from pathlib import Path
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
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Score the runs' averaged logits besides (labels of frames)."),
    ] = False,
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores",
            metavar="PATH",
            help="In place of runs: scores of frames, a report's scores.hdf5 or a folder of tables (sed_scores_eval).",
        ),
    ] = None,
    detections: Annotated[
        list[Path] | None,
        typer.Option(
            "--detections",
            metavar="TSV",
            help="In place of runs: a table of detected events; several times for several operating points.",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="TSV", help="True events for --scores and --detections: filename, onset, ..."),
    ] = None,
    durations: Annotated[
        Path | None, typer.Option("--durations", metavar="TSV", help="And the clips' lengths: filename, duration.")
    ] = None,
    backend: Annotated[
        str,
        typer.Option("--backend", metavar="NAME", help="Of psds1_50 with --scores: c2ftool, psds_eval."),
    ] = "c2ftool",
    save_scores: Annotated[
        Path | None,
        typer.Option(
            "--save-scores", metavar="DIR", help="Write a run's scores of frames as tables, one for each clip."
        ),
    ] = None,
    device: DeviceName = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Score the test clips of finished runs again and write their reports; several runs make one table.

    data.* and compression.* score other clips, or at another compression, into a report of their own; postprocess.* and
    empty say what becomes of scores of frames; savings.* compare with another baseline.

    \b
    c2f evaluate --metric accuracy
    c2f evaluate eat-finetune eat-scratch --metric accuracy --metric map
    c2f evaluate eat-finetune data.test=[valid] --expect "accuracy>=0.8"
    c2f evaluate coarse-to-fine "compression={method: fshift, factor: 2}"
    c2f evaluate "sed-teacher-*" --ensemble --metric psds1 postprocess.median="0.48 s"
    c2f evaluate --scores scores/ --truth truth.tsv --durations durations.tsv --metric psds1
    """
    from c2ftool.cli import verdicts
    from c2ftool.cli.options import data_root, runs_root
    from c2ftool.engine.rescore import rescore_all
    from c2ftool.errors import UsageError

    words = runs or []
    names = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    demands = [verdicts.read_demand(text) for text in expect or []]
    if scores is not None or detections:
        from c2ftool.cli.score_files import measure

        if names or weights or ensemble or save_scores:
            raise UsageError("--scores and --detections are in place of runs", cure="Leave out runs and --weights.")
        measured = measure(scores, detections or [], truth, durations, metric, overrides, backend)
        verdicts.print_measured(measured, json)
        verdicts.require(demands, [measured])
        return
    if backend != "c2ftool":
        raise UsageError("--backend goes with --scores", cure="A run's are in its report: scores.hdf5.")
    if truth is not None or durations is not None:
        raise UsageError("--truth and --durations go with --scores or --detections", cure="A run knows its data.")
    scored = rescore_all(
        names,
        runs_root=runs_root(),
        data_root=data_root(),
        metrics=metric,
        weights=weights,
        overrides=overrides,
        device=device,
        say=lambda text: typer.echo(text, err=True),
        ensemble=ensemble,
    )
    if save_scores is not None:
        from c2ftool.cli.score_files import save

        save(scored, save_scores)
    verdicts.print_scored(scored, json)
    verdicts.require(demands, scored)
