"""`c2f export`: our weights in the layout that others read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from c2ftool.cli.options import Json, Traceback, runs_root

if TYPE_CHECKING:
    from c2ftool.models.public.account import State

Layout = Literal["eat", "ast", "ssast", "htsat", "cnn14", "beats", "atst", "fpasst", "m2d", "asit"]


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
            "saved theirs; what is in theirs and never used is zeros.",
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

    \b
    c2f export eat --to eat_mine.pt
    c2f export eat_esc50 --which last --to eat_esc50.pt --force
    c2f export runs/eat/checkpoints/weights-coarse.safetensors --to coarse.pt
    """
    from c2ftool.errors import UsageError

    weights = _find(source, which)
    if to.exists() and (not force or to.is_dir()):
        cure = (
            "Give another path with --to." if to.is_dir() else "Give another path with --to, or --force to replace it."
        )
        raise UsageError(
            "there is a folder of that name" if to.is_dir() else "the file exists", place=str(to), cure=cure
        )

    from c2ftool.files import translate_failure

    with translate_failure(to):
        to.parent.mkdir(parents=True, exist_ok=True)
    done = _write(weights, to, layout)
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
    start = starting_weights(weights)
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
        "notes": list(made.notes),
    }
    if start.family == "eat":
        done["teacher"] = teacher is not None
    if start.family in ("ast", "ssast"):  # the layout does not hold them
        done |= {"stride": recorded_pair(record, "stride"), "grid": start.grid}
    return done


def _teacher(weights: Path) -> State | None:
    """The teacher that was saved beside pre-trained weights."""
    from c2ftool.models.weights import starting_weights

    beside = weights.with_name(f"{weights.stem}-teacher.safetensors")
    return starting_weights(beside).backbone if beside.is_file() else None
