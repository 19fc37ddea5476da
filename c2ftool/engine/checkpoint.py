"""Saving and restoring the exact state of a run.

    checkpoints/
      step-00000120/            one moment, whole: weights.safetensors, state.pt, manifest.json (SHA-256 of each)
      weights-last.safetensors  the newest weights (the same file, linked)
      weights-last-teacher.safetensors
      weights-best.safetensors  of the newest phase, by evaluate.select
      weights-average.safetensors  the mean over the last phase, where it is averaged
      weights-PHASE.safetensors as each phase ended

A moment is written under a temporary name and renamed, so it is there whole or not at all. Neither torch nor
safetensors notices a flipped bit, so every file is hashed; the newest moment whose hashes hold is resumed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from c2ftool.errors import DataError
from c2ftool.files import publish_folder, sha256, translate_failure, write_atomically
from c2ftool.models.weights import read_weights, save_weights

_NAME = re.compile(r"step-(\d{8,})")


class Checkpoints:
    """The checkpoints folder of a run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(
        self,
        total: int,
        weights: dict[str, Tensor],
        record: dict[str, Any],
        state: dict[str, Any],
        teacher: dict[str, Tensor] | None = None,
    ) -> Path:
        """Write the moment after `total` steps, point the `last` files at it and drop moments beyond `keep`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"step-{total:08d}"
        partial = self.folder / f".{final.name}.{os.getpid()}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with translate_failure(partial):
            try:
                partial.mkdir()
                save_weights(partial / "weights.safetensors", weights, record)
                if teacher is not None:
                    save_weights(partial / "teacher.safetensors", teacher, record)
                torch.save(state, partial / "state.pt")
                files = sorted(p.name for p in partial.iterdir())
                manifest = {"total": total, "sha256": {name: sha256(partial / name) for name in files}}
                write_atomically(partial / "manifest.json", json.dumps(manifest, indent=1))
                if final.exists():  # the same step again, after a resume from an older moment
                    shutil.rmtree(final)
                publish_folder(partial, final)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        self._link(final / "weights.safetensors", "weights-last.safetensors")
        if teacher is not None:
            self._link(final / "teacher.safetensors", "weights-last-teacher.safetensors")
        for old in self._moments()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def save_weights(self, which: str, weights: dict[str, Tensor], record: dict[str, Any]) -> Path:
        """Write weights-`which`.safetensors (best, average, or a phase's name)."""
        path = self.folder / f"weights-{which}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        save_weights(path, weights, record)
        return path

    def newest(
        self, note: Callable[[str], None]
    ) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor] | None] | None:
        """(weights, state, teacher) of the newest moment whose hashes hold; None where there is none.

        note: told of every moment that is passed over. Raises DataError if there are moments and none of them holds.
        """
        for leftover in self.folder.glob(".step-*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        moments = self._moments()
        for moment in moments:
            fault = _fault(moment)
            if fault is not None:
                note(f"checkpoint {moment.name} is damaged ({fault}); trying the one before")
                continue
            weights, _ = read_weights(moment / "weights.safetensors")
            state = torch.load(moment / "state.pt", map_location="cpu", weights_only=True)
            teacher = moment / "teacher.safetensors"
            return weights, state, read_weights(teacher)[0] if teacher.exists() else None
        if moments:
            raise DataError(
                f"none of the {len(moments)} checkpoints can be read",
                place=str(self.folder),
                cure="Start a new run (--run NAME), with model.weights from a weights file that is whole.",
            )
        return None

    def _moments(self) -> list[Path]:
        found = [p for p in self.folder.glob("step-*") if _NAME.fullmatch(p.name)]
        return sorted(found, key=lambda p: int(p.name[5:]), reverse=True)

    def _link(self, source: Path, name: str) -> None:
        """Give `source` a second name; a copy where the file system has no hard links."""
        temporary = self.folder / f".{name}.{os.getpid()}.partial"
        temporary.unlink(missing_ok=True)
        with translate_failure(temporary):
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
            temporary.replace(self.folder / name)


def _fault(moment: Path) -> str | None:
    """What is wrong with a moment's files; None if nothing."""
    try:
        manifest = json.loads((moment / "manifest.json").read_text())
        for name, expected in manifest["sha256"].items():
            if sha256(moment / name) != expected:
                return f"{name} has changed since it was written"
    except (OSError, ValueError, KeyError) as fault:
        return str(fault)
    return None
