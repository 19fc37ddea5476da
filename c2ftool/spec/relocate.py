"""Copying a spec to another folder without breaking what it extends."""

from __future__ import annotations

import os
import re
from pathlib import Path

from c2ftool.spec.find import named_specs


def relocated(source: Path, target: Path) -> str:
    """The text of `source` as it must read at `target`: a relative `extends` becomes a known name or a new path."""
    text = source.read_text(encoding="utf-8")
    match = re.search(r"^extends:[ \t]*(['\"]?)([^'\"#\n]+?)\1[ \t]*(?=#|$)", text, re.MULTILINE)
    if match is None or not (source.parent / match[2]).is_file():
        return text
    base = (source.parent / match[2]).resolve()
    known = {path.resolve(): name for name, path in named_specs().items()}
    new = known.get(base) or os.path.relpath(base, target.resolve().parent)
    return text[: match.start(2)] + new + text[match.end(2) :]
