"""Putting trained adapters (`adapters: [{weights: ..}]`) on a student's body, and saying what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from c2ftool.adapters.files import SavedAdapter, from_state, read_adapter, require_form
from c2ftool.adapters.insert import item_of
from c2ftool.engine.start import Parent
from c2ftool.errors import DataError
from c2ftool.files import sha256
from c2ftool.models.weights import load_into, read_weights, resolve_weights
from c2ftool.spec.adapters import LookAside, Lora, Parallel
from c2ftool.spec.resolved import Resolved

Item = Parallel | LookAside | Lora


def load_adapters(
    student: nn.Module, resolved: Resolved, runs_root: Path, parent: Parent | None, say: Callable[[str], None]
) -> list[dict[str, str]]:
    """Load the items that start from trained ones; their references and hashes.

    The body must be the one that they were trained on. The head comes with the first of them that has one for the same
    classes. Raises MissingError, or DataError for another body, backbone or form.
    """
    sources, headed = [], False
    backbone, head = student.backbone, student.head
    assert isinstance(backbone, nn.Module) and isinstance(head, nn.Module)
    for item in resolved.adapters:
        if item.weights is None:
            continue
        saved, where, digest = find_adapter(item, runs_root)
        _require_fit(saved, item, resolved, parent, where)
        others = tuple(name for name in backbone.state_dict() if item_of(name) != item.name)
        loaded = load_into(backbone, saved.tensors, where=where, allow_missing=others)
        if loaded.unexpected:
            raise DataError(
                f"{len(loaded.unexpected)} of its tensors have no place, as {loaded.unexpected[0]}",
                place=where,
                cure="Write the item as the trained one is.",
            )
        notes = [f"adapter {item.name} of {item.weights}"]
        if not headed and saved.classes == resolved.classes and _shapes(saved.head) == _shapes(head.state_dict()):
            load_into(head, saved.head, where=where)
            headed = True
            notes.append("its head")
        say(f"adapters: {', '.join(notes)} (sha256 {digest[:12]})")
        sources.append({"weights": item.weights, "sha256": digest})
    return sources


def find_adapter(item: Item, runs_root: Path) -> tuple[SavedAdapter, str, str]:
    """(the saved adapter under the item's name, where it lies, its SHA-256)."""
    assert item.weights is not None and item.name is not None
    kind, _, rest = item.weights.partition(":")
    if kind == "file" and not rest.endswith(".safetensors"):
        folder = Path(rest).expanduser()
        saved = read_adapter(folder, item.name)
        return saved, str(folder), sha256(folder / "adapter_model.safetensors")
    path = resolve_weights(item.weights, runs_root)
    there = from_state(*read_weights(path))
    chosen = [saved for saved in there if saved.item.name == item.name] or (there if len(there) == 1 else [])
    if not chosen:
        names = ", ".join(str(saved.item.name) for saved in there) or "none"
        raise DataError(
            f"it has no adapter {item.name!r}; its adapters: {names}",
            place=str(path),
            cure="Call the item as the trained one is called.",
        )
    return chosen[0].renamed(item.name), str(path), sha256(path)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _require_fit(saved: SavedAdapter, item: Item, resolved: Resolved, parent: Parent | None, where: str) -> None:
    """Raises DataError for an adapter of another backbone, body or form."""
    if saved.backbone is not None and saved.backbone != resolved.model.backbone:
        raise DataError(
            f"an adapter of {saved.backbone} cannot stand on {resolved.model.backbone}",
            place=where,
            cure="Choose the backbone that it was trained on.",
        )
    require_form(saved.item, item, resolved.model.backbone, where)
    if not saved.alone:
        raise DataError(
            f"the run of adapter {item.name} trained its body besides, or began with a random one: the adapter alone "
            "is not what was trained",
            place=where,
            cure="Start from the whole run (model.weights), with the same adapters.",
        )
    if saved.parent is not None and (parent is None or saved.parent["sha256"] != parent.sha256):
        has = "random weights" if parent is None else f"{parent.reference} (sha256 {parent.sha256[:12]})"
        raise DataError(
            f"it was trained on {saved.parent['weights']} (sha256 {saved.parent['sha256'][:12]}), and this run's body "
            f"is {has}",
            place=where,
            cure=f"Set model.weights to {saved.parent['weights']}, or to a copy of it.",
        )
