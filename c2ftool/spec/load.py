"""The one way to a checked spec: file, `extends`, arguments, sections, checks across them; all faults at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from c2ftool.spec.check import check
from c2ftool.spec.faults import validate
from c2ftool.spec.find import require_spec
from c2ftool.spec.merge import expand_phases, read_merged
from c2ftool.spec.overrides import apply
from c2ftool.spec.read import Fault, Faults, Node, Place, at, fail, plain
from c2ftool.spec.root import Spec


@dataclass(frozen=True)
class Loaded:
    """A checked spec and where it came from."""

    spec: Spec
    data: dict[str, Any]  # merged, as users write it
    path: Path
    overrides: tuple[str, ...]

    @property
    def text(self) -> str:
        """The spec file's own text."""
        return self.path.read_text(encoding="utf-8")

    def with_overrides(self, more: list[str]) -> Loaded:
        """The same spec with further arguments."""
        return load_file(self.path, [*self.overrides, *more])


def load_spec(reference: str, overrides: list[str] | None = None) -> Loaded:
    """The spec that a path or name stands for, with `KEY=VALUE` arguments.

    Raises MissingError where there is none, SpecError with every fault in it.
    """
    return load_file(require_spec(reference), overrides or [])


def load_file(path: Path, overrides: list[str]) -> Loaded:
    """The spec in a file, with arguments."""
    faults: list[Fault] = []
    try:
        merged = read_merged(path)
    except Faults as found:
        # without the files only the arguments' own faults can be told
        apply(Node({}, Place(str(path))), overrides, faults)
        raise fail([*found.faults, *faults]) from None
    root = apply(merged, overrides, faults)
    whole = expand_phases(root)
    try:
        spec = validate(whole)
    except Faults as found:
        raise fail([*faults, *found.faults]) from None
    for where, message, hint in check(spec):
        node = at(whole, where)
        faults.append(Fault(message, node.place if len(where) > 1 or node.key is None else node.key, hint))
    if faults:
        raise fail(faults)
    return Loaded(spec, plain(root), path, tuple(overrides))
