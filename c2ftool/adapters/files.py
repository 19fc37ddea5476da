"""Adapters as folders in the layout of Hugging Face's peft: adapter_config.json and adapter_model.safetensors.

Low-rank updates are written as peft writes them (`peft_type` LORA), and those that peft wrote for a network with our
names, or timm's, are read. Parallel and look-aside adapters, which peft does not know, have the same two files under
types of our own (PARALLEL, LOOK_ASIDE). What c2ftool adds stands in c2f.json beside them: the item of the spec, the
backbone, the parent's reference and hash, the classes. The head is saved with them (`modules_to_save`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from c2ftool.adapters.insert import item_of, key_of
from c2ftool.errors import DataError, MissingError
from c2ftool.files import write_atomically
from c2ftool.spec.adapters import Adapter, LookAside, Lora, Parallel, Target
from c2ftool.spec.backbones import BACKBONES

CONFIG, TENSORS, RECORD = "adapter_config.json", "adapter_model.safetensors", "c2f.json"
_TYPES = {"parallel": "PARALLEL", "loaa": "LOOK_ASIDE", "lora": "LORA"}
_PREFIX = "base_model.model."
_OURS = {"down": "lora_A.weight", "up": "lora_B.weight"}
_THEIRS = re.compile(r"(?:backbone\.)?(blocks\.(\d+)\.(?:attn|mlp)\.(\w+))\.lora_([AB])\.(?:\w+\.)?weight")
_TARGETS: dict[str, Target] = {"qkv": "qkv", "q": "qkv", "proj": "proj", "fc1": "fc1", "fc2": "fc2"}
_ITEM: TypeAdapter[Parallel | LookAside | Lora] = TypeAdapter(Adapter)


@dataclass(frozen=True)
class SavedAdapter:
    """One adapter on its own. tensors: by name in the backbone, with the item's own name in it.

    head: by name in the head; empty without. backbone, parent, classes: None where the file does not tell.
    """

    item: Parallel | LookAside | Lora
    tensors: dict[str, Tensor]
    head: dict[str, Tensor]
    backbone: str | None = None
    parent: Mapping[str, str] | None = None  # weights, sha256
    classes: list[str] | None = None
    alone: bool = True  # whether the body beside it is the parent's, untouched

    def renamed(self, name: str) -> SavedAdapter:
        """The same under another name."""
        old, new = f".{key_of(str(self.item.name))}.", f".{key_of(name)}."
        tensors = {key.replace(old, new): value for key, value in self.tensors.items()}
        return replace(self, item=self.item.model_copy(update={"name": name}), tensors=tensors)


def from_state(state: Mapping[str, Tensor], record: Mapping[str, Any]) -> list[SavedAdapter]:
    """The adapters of a weights file of ours: one for each item on its record."""
    head = {name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")}
    found = []
    for data in record.get("adapters", []):
        item = _ITEM.validate_python(data)
        tensors = {n.removeprefix("backbone."): v for n, v in state.items() if item_of(n) == item.name}
        saved = SavedAdapter(item, tensors, head, record.get("backbone"), record.get("on"), record.get("classes"))
        found.append(replace(saved, alone=bool(record.get("alone"))))
    return found


def recorded_items(data: Iterable[Mapping[str, Any]]) -> dict[str, Parallel | LookAside | Lora]:
    """The items on a record, by name."""
    items = [_ITEM.validate_python(item) for item in data]
    return {str(item.name): item for item in items}


def require_form(
    theirs: Parallel | LookAside | Lora, ours: Parallel | LookAside | Lora, backbone: str, where: str
) -> None:
    """Raises DataError, naming what differs, where a trained item is not of the form of the spec's."""
    forms = [_form(item, len(BACKBONES[backbone].block_widths)) for item in (theirs, ours)]
    if differing := sorted(k for k in forms[0] | forms[1] if forms[0].get(k) != forms[1].get(k)):
        faults = [f"{k} {forms[0].get(k)!r} there, {forms[1].get(k)!r} in the spec" for k in differing]
        raise DataError(
            f"adapter {ours.name} is of another form: {'; '.join(faults)}",
            place=where,
            cure="Write the item as the trained one is, or call it otherwise.",
        )


def _form(item: Parallel | LookAside | Lora, blocks: int) -> dict[str, Any]:
    """What decides which tensors an item has, and what they compute."""
    form = item.model_dump(exclude={"name", "weights", "parameters"})
    form["blocks"] = list(range(blocks)) if item.blocks == "all" else sorted(item.blocks)
    if isinstance(item, Lora):
        form["targets"] = sorted(item.targets)
    return form


def write_adapter(folder: Path, saved: SavedAdapter) -> None:
    """Write the files, each whole or not at all; the config, without which nothing is read, last."""
    folder.mkdir(parents=True, exist_ok=True)
    item = saved.item
    tensors = {f"{_PREFIX}backbone.{_public(name, item)}": value for name, value in saved.tensors.items()}
    tensors |= {f"{_PREFIX}head.{name}": value for name, value in saved.head.items()}
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(folder / TENSORS, lambda temporary: save_file(contiguous, temporary, {"format": "pt"}))
    config: dict[str, Any] = {
        "peft_type": _TYPES[item.kind],
        "base_model_name_or_path": (saved.parent or {}).get("weights"),
        "modules_to_save": ["head"] if saved.head else None,
        "inference_mode": True,
        "r": item.rank,
    }
    if isinstance(item, Lora):
        layers = "|".join(sorted({name.split(".lora.")[0].rpartition(".")[2] for name in saved.tensors}))
        blocks = r"\d+" if item.blocks == "all" else f"({'|'.join(map(str, item.blocks))})"
        config |= {
            "lora_alpha": item.alpha,
            "use_rslora": item.rslora,
            "lora_dropout": 0.0,
            "bias": "none",
            # an expression: of names alone, `proj` would be the patches' too
            "target_modules": rf".*blocks\.{blocks}\.(attn|mlp)\.({layers})",
        }
    own: dict[str, Any] = {"item": item.model_dump(mode="json"), "backbone": saved.backbone, "parent": saved.parent}
    own["classes"] = saved.classes
    write_atomically(folder / RECORD, json.dumps(own, indent=1, ensure_ascii=False))
    write_atomically(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False))


def _public(name: str, item: Parallel | LookAside | Lora) -> str:
    """A tensor's name in the file: peft's for low-rank updates; the item's own name is left out."""
    if isinstance(item, Lora):
        layer, _, part = name.partition(f".lora.{key_of(str(item.name))}.")
        return f"{layer}.{_OURS[part]}"
    return name.replace(f".{key_of(str(item.name))}.", ".")


def read_adapter(folder: Path, name: str) -> SavedAdapter:
    """The adapter in a folder, under this name. Raises MissingError, or DataError where it cannot be read."""
    place = folder / CONFIG
    if not place.is_file():
        there = sorted(p.parent.name for p in folder.glob(f"*/{CONFIG}")) if folder.is_dir() else []
        cure = f"Name one of those inside: {', '.join(there)}." if there else "Write one with c2f export --layout peft."
        raise MissingError(f"no adapter: there is no {CONFIG}", place=str(folder), cure=cure)
    try:
        config = json.loads(place.read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
        kind = config["peft_type"]
        own = json.loads((folder / RECORD).read_text(encoding="utf-8")) if (folder / RECORD).is_file() else {}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as fault:
        raise DataError(f"the adapter cannot be read ({fault})", place=str(folder), cure="Copy it again.") from None
    if kind not in _TYPES.values():
        raise DataError(
            f"an adapter of type {kind}", place=str(place), cure=f"c2ftool reads {', '.join(_TYPES.values())}."
        )
    tensors = {key.removeprefix(_PREFIX): value for key, value in tensors.items()}
    head = {key.removeprefix("head."): value for key, value in tensors.items() if key.startswith("head.")}
    body = {key: value for key, value in tensors.items() if not key.startswith("head.")}
    try:
        if own:
            item = _ITEM.validate_python(own["item"] | {"name": name})
        else:
            item = _theirs(config, body, name, place)
    except (ValidationError, KeyError, TypeError) as fault:
        raise DataError(f"its config cannot be read ({type(fault).__name__})", place=str(place)) from None
    named = {_own(key, item, place): value.float() for key, value in body.items()}
    return SavedAdapter(item, named, head, own.get("backbone"), own.get("parent"), own.get("classes"))


def _own(key: str, item: Parallel | LookAside | Lora, place: Path) -> str:
    """A tensor's name in the backbone."""
    if not isinstance(item, Lora):
        before, _, short = key.removeprefix("backbone.").rpartition(".")
        return f"{before}.{key_of(str(item.name))}.{short}"
    found = _THEIRS.fullmatch(key)
    if found is None:
        raise DataError(f"a tensor of no layer of ours: {key}", place=str(place), cure="It is of another network.")
    return f"{found[1]}.lora.{key_of(str(item.name))}.{'down' if found[4] == 'A' else 'up'}"


def _theirs(config: Mapping[str, Any], body: Mapping[str, Tensor], name: str, place: Path) -> Lora:
    """The item of an update that peft wrote. Raises DataError for what ours do not compute."""
    known: dict[str, tuple[Any, ...]] = {
        "use_dora": (False,),
        "bias": ("none",),
        "rank_pattern": ({},),
        "alpha_pattern": ({},),
        "init_lora_weights": (True, False, "gaussian"),  # others change the weights that the update stands on
    }
    for key, plain in known.items():
        if config.get(key) not in (*plain, None):
            raise DataError(f"{key} {config[key]!r}", place=str(place), cure="c2ftool reads plain low-rank updates.")
    found = [match for match in map(_THEIRS.fullmatch, body) if match]
    if not found:
        raise DataError(
            f"no low-rank updates of blocks of ours, but {', '.join(list(body)[:2])}",
            place=str(place),
            cure="It is of another network.",
        )
    if unknown := sorted({match[3] for match in found} - _TARGETS.keys()):
        raise DataError(
            f"updates of {', '.join(unknown)}", place=str(place), cure=f"c2ftool has them of {', '.join(_TARGETS)}."
        )
    targets = list(dict.fromkeys(_TARGETS[match[3]] for match in found))
    return Lora(
        kind="lora",
        name=name,
        rank=config["r"],
        alpha=config["lora_alpha"],
        rslora=bool(config.get("use_rslora")),
        targets=targets,
        blocks=sorted({int(match[2]) for match in found}),
    )
