"""Public data set layouts: each module lists the clips of one layout and decodes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, assert_never, get_args

from c2ftool.data.sources import (
    audioset,
    csv,
    esc50,
    folder,
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
    "librispeech",
    "folder",
    "csv",
]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def find(layout: Layout, source: Path) -> Listing:
    """The clips of a data set in one of the known layouts; raises MissingError or DataError if it is another one."""
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
        case "librispeech":
            return librispeech.find(source)
        case "folder":
            return folder.find(source)
        case "csv":
            return csv.find(source)
        case _:
            assert_never(layout)
