"""`c2f export`: our weights in the layout that others read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from c2ftool.cli.options import Json, Traceback, runs_root

if TYPE_CHECKING:
    from c2ftool.models.public.account import State
    from c2ftool.models.weights import Start

Layout = Literal["eat", "ast", "ssast", "htsat", "cnn14", "beats", "atst", "fpasst", "m2d", "asit", "peft"]


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_FILE", help="A run's name or folder, or a weights file (.safetensors).", show_default=False
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="PATH", help="The file to write.", show_default=False)],
    layout: Annotated[
        Layout | None,
        typer.Option(
            help="Whose; that of the weights' own family if not given. The file is a torch dictionary as the authors "
            "saved theirs; what is in theirs and never used is zeros. peft: the adapters alone, a folder in the layout "
            "of Hugging Face.",
            show_default=False,
        ),
    ] = None,
    which: Annotated[
        str | None,
        typer.Option(
            metavar="average|best|last|PHASE", help="Which weights of a run; the first of these three if not given."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Write weights under their published names, so that programs made for published checkpoints read them.

    EAT: fine-tuned weights get the fine-tuned layout, with the head. Pre-trained weights get the pre-trained one, with
    the decoder, and with the teacher (`_ema`) where the file's own teacher is beside it: that of a run's last weights.

    AST, SSAST: fine-tuned weights, with the head; SSAST's pre-trained ones with its prediction heads. The layout does
    not hold the stride; the note that is printed says it.

    HTS-AT: with a token-semantic head. CNN14: with a linear head. BEATs: as Microsoft's files with a linear head of
    clips, else as those of sound event detection, whose layout ATST-Frame, fPaSST, M2D and ASiT have too.

    A run of adapters: with --layout peft what was trained alone, a folder (for several adapters a folder each inside);
    else the whole network, low-rank updates merged into it. Other adapters cannot be merged.

    \b
    c2f export eat --to eat_mine.pt
    c2f export eat_esc50 --which last --to eat_esc50.pt --force
    c2f export runs/eat/checkpoints/weights-coarse.safetensors --to coarse.pt
    c2f export adapted --layout peft --to adapted_peft
    """
    from c2ftool.errors import UsageError

    weights = _find(source, which)
    fixed = to.is_dir() if layout != "peft" else to.exists() and not _is_export(to)
    if to.exists() and (fixed or not force):
        cure = "Give another path with --to." if fixed else "Give another path with --to, or --force to replace it."
        raise UsageError(
            "there is a folder of that name" if to.is_dir() else "the file exists", place=str(to), cure=cure
        )

    from c2ftool.files import translate_failure

    with translate_failure(to):
        to.parent.mkdir(parents=True, exist_ok=True)
    done = _write_adapters(weights, to) if layout == "peft" else _write(weights, to, layout)
    if json:
        from json import dumps

        typer.echo(dumps(done, ensure_ascii=False))
    else:
        typer.echo(f"wrote {to}: {', '.join(_notes(done))}, from {weights}")


def _notes(done: dict[str, Any]) -> list[str]:
    """What was written, in words."""
    notes = [done["layout"]]
    if done.get("teacher"):
        notes.append("with the teacher")
    notes.append(f"{done['tensors']} tensors")
    if "stride" in done:
        stride, grid = done["stride"], done["grid"]
        notes.append("stride {} x {} (time x mel)".format(*stride) if stride else "stride not on record")
        notes.append("grid {} x {}".format(*grid) if grid else "grid not on record")
    return notes + done.get("notes", [])


def _find(source: str, which: str | None) -> Path:
    """The weights file."""
    from c2ftool.errors import UsageError
    from c2ftool.models.weights import weights_of_run

    path = Path(source)
    if path.is_file() or path.suffix == ".safetensors":
        if which is not None:
            raise UsageError(
                "--which chooses among a run's weights, and this is a file", place=source, cure="Leave it out."
            )
        return path
    return weights_of_run(path if (path / "checkpoints").is_dir() else runs_root() / source, which)


def _write(weights: Path, to: Path, layout: Layout | None) -> dict[str, Any]:
    """What was written, for the summary."""
    import torch

    from c2ftool.errors import DataError, UsageError
    from c2ftool.files import write_atomically
    from c2ftool.models.public.writing import WRITTEN, Parts, published
    from c2ftool.models.weights import read_weights, recorded_pair, starting_weights

    _, record = read_weights(weights)  # of ours only: published files need no exporting
    start = starting_weights(weights, runs_root=runs_root())
    merged: list[str] = []
    if record.get("adapters"):
        start, merged = _merged(start, weights)
    if start.family not in WRITTEN:
        raise DataError(f"weights of {start.backbone_name!r} have no published layout", place=str(weights))
    if layout is not None and layout != start.family:
        raise UsageError(
            f"weights of {start.backbone_name} cannot be written as {layout}",
            place=str(weights),
            cure=f"Leave --layout out, or write --layout {start.family}.",
        )
    teacher = _teacher(weights) if start.family == "eat" and start.head is None else None
    try:
        made = published(start.family, Parts(start.backbone, start.head, start.decoder, teacher, start.grid))
    except KeyError as fault:
        raise DataError(
            f"tensor {fault} is missing: not weights of {start.family.upper()}", place=str(weights)
        ) from None
    except ValueError as fault:
        raise DataError(f"cannot be exported: {fault}", place=str(weights)) from None
    report = made.report
    if not report.clean:  # what is written must be readable again
        raise DataError(f"cannot be exported: {report}", place=str(weights))
    write_atomically(to, lambda temporary: torch.save(made.content, temporary))
    done: dict[str, Any] = {
        "path": str(to),
        "from": str(weights),
        "layout": report.layout,
        "backbone": record.get("backbone"),
        "tensors": len(report.loaded) + len(report.ignored),
        "notes": [*made.notes, *([f"{', '.join(merged)} merged"] if merged else [])],
    }
    if start.family == "eat":
        done["teacher"] = teacher is not None
    if start.family in ("ast", "ssast"):  # the layout does not hold them
        done |= {"stride": recorded_pair(record, "stride"), "grid": start.grid}
    return done


def _merged(start: Start, weights: Path) -> tuple[Start, list[str]]:
    """(the weights with their low-rank updates merged, the updates' names)."""
    from dataclasses import replace

    from c2ftool.adapters.insert import item_of
    from c2ftool.adapters.lora import merged_state, scales
    from c2ftool.errors import UsageError

    items = {item for item in map(item_of, start.backbone) if item is not None}
    try:
        body = merged_state(start.backbone, scales((start.record or {}).get("adapters", [])), items)
    except ValueError as fault:
        raise UsageError(
            f"no published layout holds adapters: {fault}",
            place=str(weights),
            cure="Write the adapters alone: --layout peft.",
        ) from None
    return replace(start, backbone=body), sorted(items)


def _is_export(folder: Path) -> bool:
    """Whether a folder is one of adapters, and of nothing else, that may be replaced."""
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    return folder.is_dir() and files <= {"adapter_config.json", "adapter_model.safetensors", "c2f.json"}


def _write_adapters(weights: Path, to: Path) -> dict[str, Any]:
    """What was written of the adapters alone, for the summary."""
    import os
    import shutil

    from c2ftool.adapters.files import from_state, write_adapter
    from c2ftool.errors import UsageError
    from c2ftool.files import publish_folder
    from c2ftool.models.weights import read_weights

    state, record = read_weights(weights)
    found = from_state(state, record)
    if not found:
        raise UsageError("these weights have no adapters", place=str(weights), cure="Leave --layout out.")
    if not all(saved.alone for saved in found):
        raise UsageError(
            "the run trained its body besides, or began with a random one: the adapters alone are not what was trained",
            place=str(weights),
            cure="Keep the run's own weights file. Low-rank updates can be merged: leave --layout out.",
        )
    new = to.with_name(f".{to.name}.{os.getpid()}.partial")
    try:
        for saved in found:
            write_adapter(new if len(found) == 1 else new / str(saved.item.name), saved)
        if to.exists():  # of an earlier export, asked to be replaced
            shutil.rmtree(to)
        publish_folder(new, to)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return {
        "path": str(to),
        "from": str(weights),
        "layout": "peft",
        "backbone": record.get("backbone"),
        "tensors": sum(len(saved.tensors) + len(saved.head) for saved in found),
        "notes": [f"{saved.item.name}: {saved.item.kind}, rank {saved.item.rank}" for saved in found],
    }


def _teacher(weights: Path) -> State | None:
    """The teacher that was saved beside pre-trained weights."""
    from c2ftool.models.weights import starting_weights

    beside = weights.with_name(f"{weights.stem}-teacher.safetensors")
    return starting_weights(beside).backbone if beside.is_file() else None
