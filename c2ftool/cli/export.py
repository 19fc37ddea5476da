"""`c2f export`: our weights in the layout that others read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from c2ftool.cli.options import Json, Traceback, runs_root

if TYPE_CHECKING:
    from torch import Tensor


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_FILE", help="A run's name or folder, or a weights file (.safetensors).", show_default=False
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="PATH", help="The file to write.", show_default=False)],
    layout: Annotated[
        Literal["eat"],
        typer.Option(
            help="eat: as EAT's authors publish theirs, a torch dictionary with `model`; cfg and args are empty."
        ),
    ] = "eat",
    which: Annotated[
        str | None,
        typer.Option(metavar="best|last|PHASE", help="Which weights of a run; the best, else the last, if not given."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Write weights under their published names, so that programs made for published checkpoints read them.

    Fine-tuned weights get the fine-tuned layout, with the head. Pre-trained weights get the pre-trained one, with the
    decoder, and with the teacher (`_ema`) where the file's own teacher is beside it: that of a run's last weights.

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
    done = _write(weights, to)
    if json:
        from json import dumps

        typer.echo(dumps(done, ensure_ascii=False))
    else:
        with_teacher = ", with the teacher" if done["teacher"] else ""
        typer.echo(f"wrote {to}: {done['layout']}{with_teacher}, {done['tensors']} tensors, from {weights}")


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


def _write(weights: Path, to: Path) -> dict[str, object]:
    """What was written, for the summary."""
    import torch

    from c2ftool.errors import DataError
    from c2ftool.files import write_atomically
    from c2ftool.models.public.eat import to_native, to_public
    from c2ftool.models.weights import read_weights, starting_weights

    _, record = read_weights(weights)  # of ours only: published files need no exporting
    start = starting_weights(weights)
    beside = weights.with_name(f"{weights.stem}-teacher.safetensors")
    teacher: dict[str, Tensor] | None = None
    if start.head is None and beside.is_file():
        teacher = starting_weights(beside).backbone
    try:
        model = to_public(start.backbone, head=start.head, decoder=start.decoder, teacher=teacher)
    except KeyError as fault:
        raise DataError(f"tensor {fault} is missing: not weights of EAT", place=str(weights)) from None
    flat = {name: t for name, t in model.items() if name != "_ema"}
    flat |= {f"_ema.{name}": t for name, t in model.get("_ema", {}).items()}
    report = to_native(flat).report
    if not report.clean:  # what is written must be readable again
        raise DataError(f"cannot be exported: {report}", place=str(weights))
    content = {"args": None, "cfg": None, "model": model}
    write_atomically(to, lambda temporary: torch.save(content, temporary))
    return {
        "path": str(to),
        "from": str(weights),
        "layout": report.layout,
        "backbone": record.get("backbone"),
        "tensors": len(flat),
        "teacher": teacher is not None,
    }
