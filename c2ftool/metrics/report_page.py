"""The page of a report: plain HTML with its style inside; figures and tables are files beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, TypedDict

import numpy as np

from c2ftool.metrics.outcome import Results
from c2ftool.metrics.results import ClipResults

_OPEN_ROWS = 60  # longer tables are folded
_PAIRS = 15
_PLACED = ("curves.png", "cost.png", "per_class.png", "confusion.png")  # figures that have their own place
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2126; background: #fff; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { text-align: left; padding: .22rem .9rem .22rem 0; border-bottom: 1px solid #e3e5e8; vertical-align: top; }
th { border-bottom: 2px solid #9aa1ab; } td.n, th.n { text-align: right; }
tr.sum td { border-top: 2px solid #9aa1ab; font-weight: 600; }
td.note, p.note, figcaption { color: #59616b; font-size: .9em; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } summary { cursor: pointer; }
@media print { details { display: block; } }
"""


class _Cost(TypedDict):
    name: str
    first_step: int
    last_step: int
    flops: float | None
    seconds: float
    clips: int


class PhaseCost(_Cost, total=False):
    """What a phase took. Steps are the optimiser steps of the whole run, from 1, first and last included.

    flops: training operations of all its clips (2 x multiply-adds), None if not counted; frontend_flops: those of the
    front end, apart. seconds: device time of training. clips: trained on, repeats counted. ended: why the phase ended,
    as in "length" or "surpasses accuracy 0.81".
    """

    frontend_flops: float
    ended: str | None


def page(
    title: str,
    results: Results | None,
    phases: Sequence[PhaseCost],
    extras: Mapping[str, str | float | int | None],
    figures: Mapping[str, str],
    tables: Sequence[str],
    savings: Sequence[tuple[str, str]] = (),
) -> str:
    """The HTML of the report. figures: file -> caption; tables: files; savings: rows. Every name is escaped."""
    parts = [f"<h1>{escape(title)}</h1>"]
    if results is not None:
        parts.append(f'<p class="note">{results.clips:,} clips, {len(results.classes)} classes, {results.kind()}</p>')
        parts.append("<h2>Scores</h2>" + _scores(results))
    if phases or savings or "cost.png" in figures:
        parts.append("<h2>Cost</h2>" + (_costs(phases) if phases else ""))
        if savings:
            parts.append("<h3>Savings</h3>" + _html_table(["", ""], savings, numbers=()))
        if "cost.png" in figures:
            parts.append(_figure("cost.png", figures["cost.png"]))
    if extras:
        rows = [[key, f"{value:.6g}" if isinstance(value, float) else value] for key, value in extras.items()]
        parts.append("<h2>Run</h2>" + _html_table(["", ""], rows, numbers=()))
    if "curves.png" in figures:
        parts.append("<h2>Training</h2>" + _figure("curves.png", figures["curves.png"]))
    if results is not None:
        parts.append("<h2>Classes</h2>" + _figure("per_class.png", figures["per_class.png"]) + _per_class(results))
        if isinstance(results, ClipResults) and results.confusion is not None:
            parts.append("<h2>Confusion</h2>" + _figure("confusion.png", figures["confusion.png"]) + _mix_ups(results))
    if more := [file for file in figures if file not in _PLACED]:
        parts.append("<h2>Detection</h2>" + "".join(_figure(file, figures[file]) for file in more))
    if tables:
        links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in tables)
        parts.append(f'<p class="note">Tables: {links}</p>')
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def flops_text(flops: float | None) -> str:
    """Operations with a prefix, to four figures: '1.234 TFLOP'; '-' for None."""
    if flops is None:
        return "-"
    size, unit = flops_unit(flops)
    return f"{flops / size:.4g} {unit}"


def flops_unit(flops: float) -> tuple[float, str]:
    """The unit in which so many operations are a number below 1000: (its size, its name), as in (1e12, 'TFLOP')."""
    power = min(max(int(math.log10(flops)) // 3, 0), 7) if flops >= 1 else 0
    return 1000.0**power, ["", "k", "M", "G", "T", "P", "E", "Z"][power] + "FLOP"


def seconds_text(seconds: float) -> str:
    """A time as people say it: '4.2 s', '3 min 05 s', '2 h 07 min'."""
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _scores(results: Results) -> str:
    rows = [[score.name, f"{score.value:.4f}", score.definition] for score in results.scores.values()]
    table = _html_table(["metric", "value", "what it is"], rows, numbers=(1,), notes=(2,))
    return table + "".join(f'<p class="note">{escape(note)}</p>' for note in results.notes())


def _costs(phases: Sequence[PhaseCost]) -> str:
    with_frontend = any("frontend_flops" in p for p in phases)
    with_end = any(p.get("ended") for p in phases)
    head = ["", "phase", "steps", "clips", "FLOPs", *(["front end"] if with_frontend else []), "time", "clips/s"]
    numbers = range(2, len(head))
    rows = []
    for number, p in enumerate(phases, 1):
        steps = p["last_step"] - p["first_step"] + 1
        frontend = [p.get("frontend_flops")] if with_frontend else []
        cells = _cost_cells(steps, p["clips"], p["flops"], frontend, p["seconds"])
        rows.append([str(number), p["name"], *cells, *([p.get("ended") or ""] if with_end else [])])
    total = len(phases) > 1
    if total:
        known = [p["flops"] for p in phases if p["flops"] is not None]
        frontend = [sum(p.get("frontend_flops", 0.0) for p in phases)] if with_frontend else []
        cells = _cost_cells(
            sum(p["last_step"] - p["first_step"] + 1 for p in phases),
            sum(p["clips"] for p in phases),
            sum(known) if len(known) == len(phases) else None,
            frontend,
            sum(p["seconds"] for p in phases),
        )
        rows.append(["", "all", *cells, *([""] if with_end else [])])
    note = '<p class="note">Training only; FLOPs are 2 x multiply-adds of forward and backward passes.</p>'
    if with_end:
        head.append("ended by")
    return _html_table(head, rows, numbers=numbers, notes=(len(numbers) + 2,), total=total) + note


def _cost_cells(
    steps: int, clips: int, flops: float | None, frontend: Sequence[float | None], seconds: float
) -> list[str]:
    pace = f"{clips / seconds:,.1f}" if seconds > 0 else "-"
    return [f"{steps:,}", f"{clips:,}", flops_text(flops), *map(flops_text, frontend), seconds_text(seconds), pace]


def _per_class(results: Results) -> str:
    head, by_class = results.class_table()
    rows = [
        [str(number), name, f"{count:,}", *map(_share, figures)]
        for number, (name, count, *figures) in enumerate(by_class, 1)
    ]
    table = _html_table(["", *head], rows, numbers=range(2, 1 + len(head)))
    return table if len(rows) <= _OPEN_ROWS else f"<details><summary>All {len(rows)} classes</summary>{table}</details>"


def _mix_ups(results: ClipResults) -> str:
    """The commonest mistakes: readable where the picture has too many classes."""
    assert results.confusion is not None
    wrong = results.confusion - np.diag(np.diagonal(results.confusion))
    order = [i for i in np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS] if wrong.flat[i] > 0]
    if not order:
        return '<p class="note">No clip was given a wrong class.</p>'
    rows = []
    for place in order:
        label, given = divmod(int(place), len(results.classes))
        of = int(results.confusion[label].sum())
        rows.append([results.classes[label], results.classes[given], f"{wrong[label, given]:,}", f"{of:,}"])
    table = _html_table(["label", "was given", "clips", "of"], rows, numbers=(2, 3))
    return f"<p>Commonest mistakes</p>{table}"


def _figure(file: str, caption: str) -> str:
    shown = escape(caption)
    return f'<figure><img src="{escape(file)}" alt="{shown}"><figcaption>{shown}</figcaption></figure>'


def _html_table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    numbers: Iterable[int],
    notes: Iterable[int] = (),
    total: bool = False,
) -> str:
    """A table; `numbers` are the columns set to the right, `notes` those in grey; `total`: the last row is a sum."""
    kinds = {**dict.fromkeys(notes, "note"), **dict.fromkeys(numbers, "n")}

    def cells(tag: str, row: Sequence[Any]) -> str:
        classes = [f' class="{kinds[i]}"' if i in kinds else "" for i in range(len(row))]
        text = ["" if cell is None else escape(str(cell)) for cell in row]
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(classes, text, strict=True))

    top = f"<thead><tr>{cells('th', head)}</tr></thead>" if any(head) else ""
    last = len(rows) - 1
    marks = [' class="sum"' if total and number == last else "" for number in range(len(rows))]
    body = "\n".join(f"<tr{mark}>{cells('td', row)}</tr>" for mark, row in zip(marks, rows, strict=True))
    return f"<table>{top}<tbody>\n{body}\n</tbody></table>"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
