"""`c2f prepare`: audio files and labels become a prepared set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from c2ftool.cli.options import Json, Traceback, data_root

if TYPE_CHECKING:
    from c2ftool.data.prepare import Progress
    from c2ftool.data.record import SetInfo

_LISTED_CLASSES = 20
_LISTED_FILES = 20


def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="The layout: esc50, speech_commands, audioset, vggsound, voxceleb1, kinetics_sounds, epic_sounds, "
            "librispeech; with events: audioset_strong, desed, dcase2016_task2, maestro; one's own: folder (a folder "
            "per class), csv (path, label or labels, split or fold) or events (filename, onset, offset, event_label); "
            "or demo, the built-in set.",
            show_default=False,
        ),
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Where the audio and its metadata are; csv, events: a table.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the set; the layout's (folder, csv, events: the source's) if not given."
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="ROOT", help="Folder of prepared sets; C2F_DATA, or `data`.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Worker processes; one for each core if not given.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Only part I of N (0/N .. N-1/N) of a job array; a last call without it finishes."
        ),
    ] = None,
    rate: Annotated[int, typer.Option(metavar="HZ", help="Sample rate of the set.")] = 16_000,
    coding: Annotated[
        str,
        typer.Option(metavar="wav|flac", help="wav: read without decoding; flac: half the size, decoded on reading."),
    ] = "wav",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make a set anew that is prepared already.")] = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Check, decode, resample and pack audio into a prepared set, and measure its mean and deviation.

    A job that was stopped, in whatever way, continues where it was. No file stops it: the summary says how many were
    resampled, averaged to mono and so on, and which were put aside and why.

    \b
    c2f prepare esc50 --from ~/ESC-50-master
    c2f prepare speech_commands --from ~/speech_commands_v0.02 --jobs 8
    c2f prepare audioset --from /data/audioset --coding flac
    c2f prepare audioset --from /data/audioset --part $SLURM_ARRAY_TASK_ID/64
    c2f prepare folder --from ~/birds --name birds
    c2f prepare csv --from ~/birds/clips.csv --name birds
    c2f prepare desed --from ~/dcase/dataset
    c2f prepare events --from ~/birds/events.tsv --name bird_events
    """
    from c2ftool.errors import UsageError

    root = to if to is not None else data_root()
    if dataset == "demo":
        if source is not None or name is not None or part is not None:
            raise UsageError(
                "the demo is built in: --from, --name and --part do not go with it", cure="c2f prepare demo"
            )
        _demo(root, overwrite, json)
        return
    info = _prepare(dataset, source, name, root, jobs, part, rate, coding, overwrite)
    target = root / (info.name if info else "")
    if info is not None:
        _print(info, target, json)
    elif json:
        typer.echo(_json_text({"part": part, "finished": False}))
    else:
        typer.echo(f"part {part} is done; when all parts are, the same command without --part finishes the set")


def _prepare(
    dataset: str,
    source: Path | None,
    name: str | None,
    root: Path,
    jobs: int | None,
    part: str | None,
    rate: int,
    coding: str,
    overwrite: bool,
) -> SetInfo | None:
    import os

    from c2ftool.data.prepare import Settings, check, check_name, prepare
    from c2ftool.data.sources import LAYOUTS, find
    from c2ftool.errors import InterruptedByHand, UsageError

    layout = next((known for known in LAYOUTS if known == dataset), None)
    if layout is None:
        import difflib

        near = difflib.get_close_matches(dataset, [*LAYOUTS, "demo"], 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown layout {dataset!r}", cure=f"{hint}layouts: {', '.join(LAYOUTS)}, demo")
    if source is None:
        raise UsageError(f"{layout} needs --from", cure=f"c2f prepare {layout} --from DIR")
    if coding not in ("wav", "flac"):
        raise UsageError(f"unknown coding {coding!r}", cure="give --coding wav or --coding flac")
    if name is None:
        own = source.resolve()
        name = layout if layout not in ("folder", "csv", "events") else own.stem if own.is_file() else own.name
    if name == "demo":
        raise UsageError("the name demo is the built-in set's", cure="give another --name")
    check_name(name)
    target = root / name
    settings = Settings(rate, "wav" if coding == "wav" else "flac")
    workers = jobs or len(os.sched_getaffinity(0))
    chosen = _part(part) if part is not None else None
    check(target, settings, workers, chosen, overwrite)
    listing = find(layout, source.resolve(), rate)
    with _Display() as display:
        try:
            return prepare(
                listing, target, settings, jobs=workers, part=chosen, overwrite=overwrite, watch=display.watch
            )
        except KeyboardInterrupt:
            raise InterruptedByHand(
                "stopped by hand; finished shards are kept", place=str(target), cure="give the same command again"
            ) from None


def _part(text: str) -> tuple[int, int]:
    from c2ftool.errors import UsageError

    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise UsageError(f"part {text!r}", cure="give --part 0/N .. N-1/N, as in --part 3/64")
    return int(first), int(second)


def _demo(root: Path, overwrite: bool, json: bool) -> None:
    from c2ftool.data.demo import build_demo
    from c2ftool.data.record import read_info

    path = build_demo(root, anew=overwrite)
    _print(read_info(path), path, json)


class _Display:
    """Progress on stderr: a bar on a terminal, a line for each tenth elsewhere."""

    def __enter__(self) -> _Display:
        import sys

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._tenth = -1
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("clips"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("preparing", total=None)
            self._bar.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def watch(self, progress: Progress) -> None:
        """Shows how far the job is."""
        if self._bar is not None:
            self._bar.update(self._task, total=progress.clips, completed=progress.clips_done)
            return
        tenth = 10 * progress.clips_done // max(progress.clips, 1)
        if tenth == self._tenth:
            return
        first, self._tenth = self._tenth < 0, tenth
        kept = f", {progress.kept} of {progress.shards} shards kept from before" if first and progress.kept else ""
        aside = f", {progress.put_aside} put aside" if progress.put_aside else ""
        typer.echo(f"prepared {progress.clips_done} of {progress.clips} clips{kept}{aside}", err=True)


def _json_text(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


def _print(info: SetInfo, path: Path, json: bool) -> None:
    """The summary on stdout."""
    if json:
        from dataclasses import asdict

        typer.echo(_json_text({"path": str(path), "finished": True, **asdict(info)}))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    table = Table(title=f"{info.name}: {len(info.classes)} classes, {info.sample_rate} Hz", title_justify="left")
    for heading in ("", *info.splits):
        table.add_column(heading, justify="left" if not heading else "right", overflow="fold")
    table.add_row("clips", *(str(count) for count in info.splits.values()))
    table.add_row("seconds", *(f"{info.seconds[split]:.1f}" for split in info.splits))
    if info.events:
        table.add_row("events", *(str(sum(info.events.get(split, {}).values())) for split in info.splits))
    columns = [info.counts[split] for split in info.splits]
    if len(info.classes) <= _LISTED_CLASSES:
        for label, name in enumerate(info.classes):
            table.add_row(name, *(str(counts.get(str(label), 0)) for counts in columns))
    else:
        every = [sorted(counts.get(str(label), 0) for label in range(len(info.classes))) for counts in columns]
        table.add_row("fewest of a class", *(str(counts[0]) for counts in every))
        table.add_row("median", *(str(counts[len(counts) // 2]) for counts in every))
        table.add_row("most of a class", *(str(counts[-1]) for counts in every))
    console.print(table)
    for line in _remarks(info):
        console.print(line)
    console.print(f"prepared set: {path}")


def _named(item: dict[str, str]) -> str:
    """The path of a clip that was put aside, and its id where the file's name does not say it."""
    from pathlib import PurePosixPath

    path = item["path"]
    return path if PurePosixPath(path).with_suffix("").as_posix().endswith(item["id"]) else f"{path} ({item['id']})"


def _remarks(info: SetInfo) -> list[str]:
    """The lines under the table: folds, statistics, rates, what was missing, handled and put aside."""
    from collections import Counter

    lines = [f"folds: {', '.join(map(str, info.folds))}"] if info.folds else []
    where = ", ".join(info.measured)
    lines.append(f"log-mel mean {info.mean:.4f}, std {info.std:.4f} ({info.frames} frames of {where})")
    if info.rates:
        lines.append("sample rates: " + ", ".join(f"{count} at {rate} Hz" for rate, count in info.rates.items()))
    if info.missing["count"]:
        splits = ", ".join(f"{count} of {split}" for split, count in info.missing["splits"].items())
        lines.append(f"missing: {info.missing['count']} clips ({splits}), as {info.missing['first'][0]}")
    lines += [f"handled: {count} {rule}" for rule, count in info.handled.items()]
    reasons = Counter(item["reason"] for item in info.quarantine)
    lines += [f"put aside: {count} {reason}" for reason, count in sorted(reasons.items())]
    shown = info.quarantine[:_LISTED_FILES]
    lines += [f"  {_named(item)}: {item['reason']}: {item['detail']}" for item in shown]
    if len(info.quarantine) > len(shown):
        lines.append(f"  and {len(info.quarantine) - len(shown)} more, in c2f.json")
    return lines + [f"note: {note}" for note in info.notes]
