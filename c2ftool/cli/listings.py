"""The tables of `c2f specs ls`, and how tables are printed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import typer

Rows = list[dict[str, Any]]


def specs() -> Rows:
    """Name, task, backbone and purpose of every named spec."""
    from c2ftool.errors import C2FError
    from c2ftool.spec.find import named_specs
    from c2ftool.spec.load import load_file

    rows: Rows = []
    for name, path in named_specs().items():
        try:
            spec = load_file(path, []).spec
            rows.append({"spec": name, "task": spec.task, "backbone": spec.model.backbone, "about": spec.about})
        except C2FError:
            rows.append({"spec": name, "task": "?", "backbone": "?", "about": f"has faults: c2f specs check {name}"})
    return rows


def backbones(full: bool = False) -> Rows:
    """Every backbone: size, cost, front end, output, what can be done with it, and what published weights learned from.

    full: with the paper and a remark, which are too long for a table.
    """
    from c2ftool.engine.catalogue import catalogue

    return [
        {
            "backbone": entry.size.name,
            "parameters": f"{entry.parameters / 1e6:.3g} M",
            "FLOPs of 10 s": f"{entry.flops / 1e9:.3g} G",
            "front end": entry.size.frontend.about,
            "output": f"{entry.width} at {entry.rate:.3g} Hz",
            "tasks": ", ".join(entry.uses),
            "compression": ", ".join(entry.size.compressions),
            "weights trained on": "; ".join(entry.weights) or "-",
        }
        | ({"about": entry.size.about, "paper": entry.size.source} if full else {})
        for entry in catalogue()
    ]


def weights() -> Rows:
    """The published checkpoints that `model.weights: public:NAME` takes."""
    from c2ftool.models.public.records import PUBLIC_WEIGHTS

    return [
        {
            "weights": f"public:{r.name}",
            "backbone": r.backbone,
            "trained on": r.task,
            "classes": r.classes or "-",
            "front end": r.frontend.about if r.frontend is not None else "images",
            "licence": r.licence.partition(" (")[0],
            "about": r.about,
        }
        for r in PUBLIC_WEIGHTS.values()
    ]


def datasets() -> Rows:
    """The prepared sets under C2F_DATA, and the layouts that `c2f prepare` knows."""
    from c2ftool.cli.options import data_root
    from c2ftool.data.sources import LAYOUTS

    root = data_root()
    rows: Rows = []
    for record in sorted(root.glob("*/c2f.json")) if root.is_dir() else []:
        info = json.loads(record.read_text())
        rows.append({"data set": info["name"], "state": "prepared", "clips": sum(info["splits"].values())})
    names = {row["data set"] for row in rows}
    rows += [{"data set": name, "state": "layout: c2f prepare", "clips": ""} for name in LAYOUTS if name not in names]
    if "demo" not in names:
        rows.append({"data set": "demo", "state": "built in", "clips": ""})
    return rows


def metrics() -> Rows:
    """Every metric and its definition."""
    from c2ftool.metrics.definitions import METRICS

    return [{"metric": name, "definition": text} for name, text in METRICS.items()]


def print_rows(rows: Rows, as_json: bool = False) -> None:
    """A table on stdout, or one JSON list."""
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    width = None if "COLUMNS" in os.environ or (Path("/dev/tty").exists() and os.isatty(1)) else 220
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(rows[0] if rows else []):
        numeric = all(isinstance(row[column], (int, float)) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=width, highlight=False).print(table)
