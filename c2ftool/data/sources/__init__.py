"""Public data set layouts: each module lists the clips of one layout and decodes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, assert_never, get_args

from c2ftool.data.sources import (
    audioset,
    audioset_strong,
    csv,
    desed,
    epic_sounds,
    esc50,
    events,
    folder,
    hear,
    kinetics_sounds,
    librispeech,
    speech_commands,
    vggsound,
    voxceleb1,
)
from c2ftool.data.sources.listing import Listing

Layout = Literal[
    "esc50",
    "speech_commands",
    "audioset",
    "vggsound",
    "voxceleb1",
    "kinetics_sounds",
    "epic_sounds",
    "librispeech",
    "audioset_strong",
    "desed",
    "dcase2016_task2",
    "maestro",
    "folder",
    "csv",
    "events",
]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def find(layout: Layout, source: Path, rate: int = 16_000) -> Listing:
    """The clips of a data set in one of the known layouts; raises MissingError or DataError if it is another one.

    rate: of the prepared set in Hz, for layouts that hold their audio at several.
    """
    match layout:
        case "esc50":
            return esc50.find(source)
        case "speech_commands":
            return speech_commands.find(source)
        case "audioset":
            return audioset.find(source)
        case "vggsound":
            return vggsound.find(source)
        case "voxceleb1":
            return voxceleb1.find(source)
        case "kinetics_sounds":
            return kinetics_sounds.find(source)
        case "epic_sounds":
            return epic_sounds.find(source)
        case "librispeech":
            return librispeech.find(source)
        case "audioset_strong":
            return audioset_strong.find(source)
        case "desed":
            return desed.find(source)
        case "dcase2016_task2":
            return hear.find_dcase2016_task2(source, rate)
        case "maestro":
            return hear.find_maestro(source, rate)
        case "folder":
            return folder.find(source)
        case "csv":
            return csv.find(source)
        case "events":
            return events.find(source)
        case _:
            assert_never(layout)
