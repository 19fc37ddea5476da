"""The report of a run: tables, figures and one page, `index.html`, that opens anywhere without a network.

Every file appears whole or not at all: written under a temporary name beside its place, then renamed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c2ftool.files import translate_failure, write_atomically
from c2ftool.metrics.curve_figure import Curve, curve_figure
from c2ftool.metrics.figures import class_figure, confusion_figure
from c2ftool.metrics.outcome import Results
from c2ftool.metrics.report_page import PhaseCost, page
from c2ftool.metrics.results import ClipResults


def write_report(
    folder: Path,
    title: str,
    results: Results | None,
    curves: Mapping[str, Curve],
    phases: Sequence[PhaseCost],
    extras: Mapping[str, str | float | int | None],
    *,
    cost: bytes | None = None,
    savings: Sequence[tuple[str, str]] = (),
    pictures: Mapping[str, tuple[bytes, str]] | None = None,
) -> list[Path]:
    """The files written: index.html and, where there is something to show, tables (CSV) and figures (PNG).

    results: of the final evaluation; None for a run without (self-supervised). curves: name -> (step, value) pairs over
    the whole run's optimiser steps. phases: what each one took. extras: further facts, in the order of the page.
    pictures: further figures, file -> (PNG, caption). cost: a figure of scores over costs (PNG). savings: what is
    compared and what came of it, in words, row by row.
    Files of an earlier report are replaced. Raises RunError if the folder cannot be written.
    """
    drawn: dict[str, bytes] = {}
    captions: dict[str, str] = {}
    tables: dict[str, bytes] = {}
    shown = {name: curve for name, curve in curves.items() if len(curve)}
    if shown:
        drawn["curves.png"] = curve_figure(shown, [(p["name"], p["first_step"], p["last_step"]) for p in phases])
        captions["curves.png"] = "Training curves over the phases"
    if cost is not None:
        drawn["cost.png"] = cost
        captions["cost.png"] = "Scores over the cost of training; dashed: the baseline's best, stars: what is compared"
    if results is not None:
        figure, what = results.by_class()
        drawn["per_class.png"] = class_figure(figure, what)
        captions["per_class.png"] = f"{what[:1].upper()}{what[1:]} by class; dashed: the mean"
        head, by_class = results.class_table()
        tables["per_class.csv"] = _table([head, *by_class])
        if isinstance(results, ClipResults) and results.confusion is not None:
            drawn["confusion.png"] = confusion_figure(results.confusion, results.classes)
            captions["confusion.png"] = "Labels (rows) and the classes that clips were given (columns)"
            tables["confusion.csv"] = _table(
                [
                    ["label", *results.classes],
                    *([name, *row.tolist()] for name, row in zip(results.classes, results.confusion, strict=True)),
                ]
            )
    for file, (content, caption) in (pictures or {}).items():
        drawn[file], captions[file] = content, caption
    html = page(title, results, phases, extras, captions, list(tables), savings)
    # the page last: it never names a file that is not there
    files = {**tables, **drawn, "index.html": html.encode()}
    with translate_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]


def _table(rows: Sequence[Sequence[Any]]) -> bytes:
    """The rows as CSV, numbers in full, an undefined one as an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
