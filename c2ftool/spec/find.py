"""Where specs are: a path, or a name of those that come with c2ftool (`eat`, `papers/eat_finetune_esc50`)."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from c2ftool.errors import MissingError


def spec_folders() -> list[Path]:
    """The folders of named specs that exist, nearest first: ./specs, the source tree's, the installed ones."""
    above = Path(__file__).resolve().parents[2]  # the source tree, or site-packages
    source = [above / "specs"] if (above / "pyproject.toml").is_file() else []
    # a wheel's data lie under the prefix: of the environment, of the user's packages, or of a --target folder
    prefixes = [Path(sys.prefix), *above.parents[2:3], above]
    installed = [prefix / "share" / "c2ftool" / "specs" for prefix in prefixes]
    found: list[Path] = []
    for folder in [Path("specs"), *source, *installed]:
        if folder.is_dir() and not any(folder.resolve() == other.resolve() for other in found):
            found.append(folder)
    return found


def find_spec(reference: str) -> Path | None:
    """The file that a path or a name stands for; None if there is none."""
    direct = Path(reference)
    if direct.is_file():
        return direct
    name = reference.removeprefix("specs/").removesuffix(".yaml")
    for folder in spec_folders():
        if (path := folder / f"{name}.yaml").is_file():
            return path
    return None


def named_specs() -> dict[str, Path]:
    """Name -> file of all named specs, sorted; of two with one name the nearer."""
    out: dict[str, Path] = {}
    for folder in spec_folders():
        for path in sorted(folder.rglob("*.yaml")):
            out.setdefault(str(path.relative_to(folder).with_suffix("")), path)
    return dict(sorted(out.items()))


def nearest(reference: str) -> str | None:
    """The known name that is most like a reference; None where none is like it."""
    name = reference.removeprefix("specs/").removesuffix(".yaml")
    near = difflib.get_close_matches(name, named_specs(), n=1, cutoff=0.5)
    return near[0] if near else None


def require_spec(reference: str) -> Path:
    """As `find_spec`; raises MissingError that names the nearest."""
    path = find_spec(reference)
    if path is not None:
        return path
    near = nearest(reference)
    cure = f"Did you mean {near!r}? " if near else ""
    raise MissingError(f"there is no spec {reference!r}", cure=cure + "`c2f specs ls` lists all.")
