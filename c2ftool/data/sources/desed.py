"""DESED (Turpault et al., DCASE 2019), as the baselines of DCASE task 4 lay it out: ten classes of domestic sounds.

`metadata/` and `audio/` lie beside each other: in the folder, or up to three levels below it (`dataset/`,
`dataset/dcase_synth/`, ..); several such pairs are read together. Tables are `.tsv` (in 2019 `.csv`), also `.gz`.

| split | table in metadata/ | audio in audio/ | labels |
|---|---|---|---|
| synthetic | train/SET/soundscapes.tsv, train/SET.tsv | train/SET/soundscapes, train/SET | strong |
| weak | train/weak.tsv | train/weak | weak |
| real | train/audioset_strong.tsv, train/strong.tsv | train/strong_label_real, train/strong | strong |
| synthetic_validation | validation/SET/soundscapes.tsv | validation/SET/soundscapes, validation/SET | strong |
| validation | validation/validation.tsv | validation/validation, validation | strong |
| public | eval/public.tsv | eval/public | strong |

SET begins with `synthetic`, as `synthetic21_train`; there may be several. Of each audio folder the copy resampled by
the baselines (`weak_16k`) is read for what the folder itself lacks. Files are matched by name without suffix. Ids are
these names, with `SET/` in front for synthetic clips, which are numbered, and `real/` for those of real: a clip may be
in weak and in real. Clips of weak and real that the tables of validation or public name are left out: they would be
trained and evaluated on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from c2ftool.data.sources.listing import ClipRef, Event, Listing, found_in, refuse, repeated, require_folder
from c2ftool.data.sources.strong import EventTable, audio_in, bare, classes_of, span, table_rows
from c2ftool.errors import DataError, MissingError

CLASSES = [
    "Alarm_bell_ringing",
    "Blender",
    "Cat",
    "Dishes",
    "Dog",
    "Electric_shaver_toothbrush",
    "Frying",
    "Running_water",
    "Speech",
    "Vacuum_cleaner",
]
SPLITS = ("synthetic", "weak", "real", "synthetic_validation", "validation", "public")
_TRAINED = ("synthetic", "weak", "real")
_NUMBERS = {name: number for number, name in enumerate(CLASSES)}
_DEPTH = 3
# split: (its tables, by their path in metadata/; folders of its audio, in audio/). SET is what the table's path says.
_PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "synthetic": (r"train/(synthetic[^/]*?)(?:/soundscapes)?", ("train/SET/soundscapes", "train/SET")),
    "weak": (r"train/weak", ("train/weak",)),
    "real": (
        r"train/(?:audioset_strong|strong_label_real|strong)",
        ("train/strong_label_real", "train/audioset_strong", "train/strong"),
    ),
    "synthetic_validation": (
        r"validation/(synthetic[^/]*?)(?:/soundscapes)?",
        ("validation/SET/soundscapes", "validation/SET"),
    ),
    "validation": (r"validation/validation", ("validation/validation", "validation")),
    "public": (r"eval/public", ("eval/public",)),
}
_STRONG = ("filename", "onset", "offset", "event_label")
_WEAK = ("filename", "event_labels")
_EXPECTED = (
    "metadata/ and audio/ beside each other, with any of train/synthetic*/soundscapes.tsv, train/weak.tsv, "
    "train/audioset_strong.tsv, validation/validation.tsv, eval/public.tsv, and audio in folders of the same names"
)
_SHOWN = 6
# NAME_30.000_40.000 and NAME_30_40 of the same video; in front, some tables put a Y
_YOUTUBE = re.compile(r"Y?([\w-]{11})_(\d+)(?:\.\d+)?_\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Part:
    """One table: its split, what stands in front of its clips' ids, and the audio folders to look in, in order."""

    split: str
    prefix: str
    table: Path
    name: str
    audio: tuple[Path, ...]

    @property
    def title(self) -> str:
        """What the table is, in messages."""
        return f"{self.split} {self.prefix.rstrip('/')}" if self.prefix.startswith("synthetic") else self.split


@dataclass(frozen=True)
class _Clip:
    """A clip as its table has it. name: the id without the table's prefix."""

    name: str
    labels: tuple[int, ...]
    events: tuple[Event, ...] = ()


def find(folder: Path) -> Listing:
    """The clips by split, in the order of the tables."""
    require_folder(folder, _EXPECTED)
    parts, others = _parts(folder)
    if not parts:
        tables = f"; tables there: {', '.join(others[:_SHOWN])}" if others else ""
        raise MissingError(
            f"not in the layout of DESED: expected {_EXPECTED}; {found_in(folder)}{tables}",
            place=str(folder),
            cure="give --from the folder that holds metadata/ and audio/, or one above it",
        )
    rows, notes = _read(parts, folder)
    rows, left_out = _without_held_out(rows)
    notes += [
        f"{len(names)} clips of {split} are also in the tables of validation or public: left out of {split}"
        for split, names in left_out.items()
    ]
    if both := len({clip.name for clip in rows.get("weak", [])} & {clip.name for clip in rows.get("real", [])}):
        notes.append(f"{both} clips are in weak and in real, with labels of either kind")
    clips: list[ClipRef] = []
    missing: list[tuple[str, str]] = []
    for part in parts:
        before = len(clips)
        files = [(place, audio_in(place)) for place in part.audio]
        for clip in rows[part.title]:
            path = next((place / names[clip.name] for place, names in files if clip.name in names), None)
            if path is None:
                missing.append((part.split, part.prefix + clip.name))
            else:
                where = path.relative_to(folder).as_posix()
                clips.append(ClipRef(part.prefix + clip.name, where, part.split, 0, clip.labels, clip.events))
        if len(clips) == before and rows[part.title]:
            looked = " and ".join(place.relative_to(folder).as_posix() for place in part.audio[::2])
            notes.append(f"none of the {len(rows[part.title])} clips of {part.name} is in {looked}")
    if not clips:
        lines = "\n  ".join(note for note in notes if note.startswith("none of the"))
        raise MissingError(
            f"none of the clips of the tables was found:\n  {lines}",
            place=str(folder),
            cure=f"expected {_EXPECTED}",
        )
    again = repeated(clip.id for clip in clips)
    refuse([f"clip {name} is in several tables" for name in again], folder, "each clip belongs to one table")
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        notes.append(f"not read: {', '.join(others[:_SHOWN])}{more}")
    here = [split for split in SPLITS if any(clip.split == split for clip in clips)]
    if not (trained := tuple(split for split in here if split in _TRAINED)):
        notes.append(f"there is no split for training: the statistics are measured on {here[0]}")
    labels = {split: "weak" if split == "weak" else "strong" for split in here}
    return Listing(
        layout="desed",
        folder=folder,
        clips=clips,
        classes=CLASSES,
        train_splits=trained or (here[0],),
        missing=missing,
        notes=notes,
        metadata_files=[part.name for part in parts],
        extra={"labels": labels, **({"left_out": left_out} if left_out else {})},
    )


def _parts(folder: Path) -> tuple[list[Part], list[str]]:
    """The tables that are read, by split, and the names of those beside them that are not."""
    roots = _roots(folder, _DEPTH)
    parts: dict[tuple[str, str], list[Part]] = {}
    others: list[str] = []
    for root in roots:
        for path, inner in _tables(root):
            name = path.relative_to(folder).as_posix()
            split, group = _split(inner)
            if not split:
                others.append(name)
                continue
            known = f"{group}_validation" if split == "synthetic_validation" and "val" not in group else group
            prefix = f"{known}/" if group else "real/" if split == "real" else ""
            audio = tuple(
                base / "audio" / (place.replace("SET", group) + copy)
                for place in _PLACES[split][1]
                for base in (root, *(other for other in roots if other != root))
                for copy in ("", "_16k")
            )
            same = parts.setdefault((split, prefix), [])
            if not any(path.samefile(part.table) for part in same):
                same.append(Part(split, prefix, path, name, audio))
    for several in parts.values():
        if len(several) > 1:
            raise DataError(
                f"several tables of {several[0].title}: {', '.join(part.name for part in several)}",
                place=str(folder),
                cure="keep one of them, or give --from the folder of one",
            )
    order = sorted(parts, key=lambda key: (SPLITS.index(key[0]), key[1]))
    return [parts[key][0] for key in order], others


def _roots(folder: Path, depth: int) -> list[Path]:
    """The folders, `folder` and so far below it, that hold `metadata/` or `audio/`; the upper ones first."""
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    roots = [folder] if any(entry.name in ("metadata", "audio") for entry in inner) else []
    for entry in inner if depth else ():
        if entry.name not in ("metadata", "audio"):
            roots += _roots(entry, depth - 1)
    return roots


def _tables(root: Path) -> list[tuple[Path, str]]:
    """The tables of a folder, each with its path in `metadata/` without suffixes."""
    metadata = root / "metadata"
    paths = sorted(path for depth in ("*", "*/*", "*/*/*") for path in metadata.glob(depth))
    inside = [(path, path.relative_to(metadata).as_posix()) for path in paths]
    loose = [(path, f"train/{path.name}") for path in sorted(root.glob("audioset_strong.*"))]  # as it is downloaded
    return [
        (path, match[1])
        for path, inner in inside + loose
        if (match := re.fullmatch(r"(.*)\.(?:tsv|csv)(?:\.gz)?", inner)) and path.is_file()
    ]


def _split(inner: str) -> tuple[str, str]:
    """(split, the synthetic set's name) of a table by its path in `metadata/`; empty where it is none or not read."""
    for split, (pattern, _) in _PLACES.items():
        if match := re.fullmatch(pattern, inner):
            return split, match[1] if match.groups() else ""
    return "", ""


def _read(parts: list[Part], folder: Path) -> tuple[dict[str, list[_Clip]], list[str]]:
    """The clips of each table by its title, and notes; refuses the tables if there are faults."""
    faults: list[str] = []
    events = EventTable()
    rows: dict[str, list[_Clip]] = {part.title: [] for part in parts}
    for part in parts:
        if part.split == "weak":
            rows[part.title] = _weak(part, faults)
        else:
            _strong(part, events, faults)
    refuse(faults, folder, "mend the lines, or fetch the tables again")
    for (title, name), happened in events.by_clip().items():
        rows[title].append(_Clip(name, classes_of(happened), happened))
    notes = events.notes()
    for part in parts:
        if empty := sum(not clip.labels for clip in rows[part.title]):
            notes.append(f"{part.title}: {empty} clips without {'labels' if part.split == 'weak' else 'events'}, kept")
    return rows, notes


def _weak(part: Part, faults: list[str]) -> list[_Clip]:
    """The clips of a table of weak labels."""
    clips: dict[str, _Clip] = {}
    for place, (filename, labels) in table_rows(part.table, part.name, _WEAK, faults):
        wrong = [] if filename else ["no filename"]
        names = [name.strip() for name in labels.split(",") if name.strip()]
        wrong += _unknown(names)
        name = PurePosixPath(bare(filename)).name
        if name in clips:
            wrong.append(f"clip {name} stands there more than once")
        faults += [f"{place}: {fault}" for fault in wrong]
        if not wrong:
            clips[name] = _Clip(name, tuple(sorted({_NUMBERS[label] for label in names})))
    return list(clips.values())


def _strong(part: Part, events: EventTable, faults: list[str]) -> None:
    """Adds the clips and events of a table; a row that is empty but for its filename is a clip without events."""
    for place, (filename, onset, offset, label) in table_rows(part.table, part.name, _STRONG, faults):
        wrong = [] if filename else ["no filename"]
        clip = (part.title, PurePosixPath(bare(filename)).name)
        if onset or offset or label:
            start, end = span(onset, offset, wrong)
            wrong += _unknown([label])
            if not wrong:
                events.add(clip, _NUMBERS[label], start, end)
        elif not wrong:
            events.name(clip)
        faults += [f"{place}: {fault}" for fault in wrong]


def _unknown(names: list[str]) -> list[str]:
    return [
        f"{name!r} is none of the ten classes" if name else "no event_label" for name in names if name not in _NUMBERS
    ]


def _without_held_out(rows: dict[str, list[_Clip]]) -> tuple[dict[str, list[_Clip]], dict[str, list[str]]]:
    """The clips without those of weak and real that are evaluated on, and the names of these."""
    held_out = {_recording(clip.name) for split in ("validation", "public") for clip in rows.get(split, [])}
    left_out = {
        split: names
        for split in ("weak", "real")
        if (names := [clip.name for clip in rows.get(split, []) if _recording(clip.name) in held_out])
    }
    unheard = {title: set(left_out.get(title, [])) for title in rows}
    kept = {title: [clip for clip in clips if clip.name not in unheard[title]] for title, clips in rows.items()}
    return kept, left_out


def _recording(name: str) -> str:
    """The video and the second that a real clip is of, however the tables write them; else its name."""
    match = _YOUTUBE.fullmatch(name)
    return f"{match[1]} {match[2]}" if match else name
