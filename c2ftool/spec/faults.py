"""From pydantic's errors to faults a user can act on: place, plain words, the nearest valid word."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import replace
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from c2ftool.spec.merge import kind_of
from c2ftool.spec.read import Fault, Faults, Node, Place, at, plain
from c2ftool.spec.root import Spec
from c2ftool.spec.shape import annotation_at, home, section_at, section_of_kind, tagged_sections, union_members

_NEEDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list: [...]",
    "dict_type": "a mapping: {...}",
    "model_type": "a mapping: {...}",
    "model_attributes_type": "a mapping: {...}",
}
_LENGTHS = ("min_length", "max_length")
_BOUNDS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}


def validate(root: Node) -> Spec:
    """The spec that the nodes hold; raises `Faults` with every fault found.

    Strict JSON mode: strict Python mode refuses lists for pairs, lax mode turns "3" into 3 (both verified).
    """
    try:
        return Spec.model_validate_json(json.dumps(plain(without_nulls(root))))
    except ValidationError as error:
        found: dict[tuple[Place, str, str | int], Fault] = {}
        for detail in error.errors(include_url=False):
            if not _meant(root, detail["loc"]):
                continue
            fault = _fault(root, detail)
            # what phases repeat of the sections above has its place there, and is told once
            found.setdefault((fault.place, detail["type"], detail["loc"][-1] if detail["loc"] else ""), fault)
        raise Faults(list(found.values())) from None


def without_nulls(node: Node, annotation: Any = Spec) -> Node:
    """The nodes less the keys whose value is `null` and that may be left out: they count as not given."""
    if isinstance(node.value, list):
        item = next((get_args(o)[0] for o in union_members(annotation) if get_origin(o) is list), None)
        return replace(node, value=[without_nulls(child, item) for child in node.value])
    if not isinstance(node.value, dict):
        return node
    section = section_of_kind(kind_of(node), annotation)
    if section is None:
        return node
    out = {}
    for key, child in node.value.items():
        field = section.model_fields.get(key)
        if field is None:
            out[key] = child
        elif child.value is not None or field.is_required():
            out[key] = without_nulls(child, field.annotation)
    return replace(node, value=out)


def _meant(root: Node, path: tuple[str | int, ...]) -> bool:
    """False for what a union reports of a member that the value was not meant as (`layers`: a word or a list)."""
    for place, element in enumerate(path):
        if isinstance(element, str) and element.endswith("]"):
            return element.startswith("list[") == isinstance(at(root, path[:place]).value, list)
    return True


def _fault(root: Node, detail: ErrorDetails) -> Fault:
    path = detail["loc"]
    node = at(root, path)
    kind, context = detail["type"], detail.get("ctx", {})
    name = _where(path, root)
    match kind:
        case "extra_forbidden":
            known = _known_keys(path[:-1])
            owner = _where(path[:-1], root)
            hint = _near(str(path[-1]), known)
            if not hint.startswith("did") and (place := home(str(path[-1]))):
                hint = f'"{path[-1]}" stands in {place}  ({hint})'
            return Fault(f'unknown key "{path[-1]}" in {owner}', node.key or node.place, hint)
        case "missing":
            # the place is the mapping that lacks the key
            known = _known_keys(path[:-1])
            hint = f"known: {', '.join(known)}"
            return Fault(f'{_where(path[:-1], root)} needs the key "{path[-1]}"', node.key or node.place, hint)
        case "literal_error":
            allowed = _allowed(str(context.get("expected", "")))
            hint = _near(str(detail["input"]), allowed)
            if str(path[-1]).startswith("literal["):
                hint = f"write {' or '.join(allowed)}, or a list"
            return Fault(f"{name} cannot be {_show(detail['input'])}", node.place, hint)
        case "union_tag_invalid":
            allowed = _allowed(str(context.get("expected_tags", "")))
            word = str(context.get("discriminator", "'kind'")).strip("'")
            tag = at(node, (word,))
            shown = f'"{tag.value}"' if isinstance(tag.value, str) else _show(plain(tag))
            return Fault(f"{name}: unknown {word} {shown}", tag.place, _near(str(context.get("tag")), allowed))
        case "union_tag_not_found":
            word = str(context.get("discriminator", "'kind'")).strip("'")
            return Fault(f'{name} needs the key "{word}"', node.key or node.place, f"known: {', '.join(_tags(path))}")
        case "value_error":
            # validators of the sections write "what is wrong; how to mend it"
            message, _, hint = str(context["error"]).partition("; ")
            message = message.replace(repr(detail["input"]), _show(detail["input"]), 1)
            return Fault(f"{name}: {message}", node.place, hint)
        case "string_pattern_mismatch":
            return Fault(
                f"{name}: {_show(detail['input'])} is not a name", node.place, "use letters, digits, `-` and `_`"
            )
        case "string_too_short":
            return Fault(f"{name} must not be empty", node.place)
        case "too_short" | "too_long":
            return Fault(f"{name} must have {_count(path, context)}, not {context['actual_length']}", node.place)
    if kind in _BOUNDS:
        limit = next(v for k, v in context.items() if k in ("gt", "ge", "lt", "le"))
        return Fault(f"{name} must be {_BOUNDS[kind]} {limit}, not {_show(detail['input'])}", node.place)
    if kind in _NEEDS:
        quoted = isinstance(detail["input"], str) and re.fullmatch(
            r"[-+]?[0-9.]+(e[-+]?[0-9]+)?|true|false", detail["input"]
        )
        hint = "write it without quotes" if quoted else ""
        return Fault(f"{name} must be {_NEEDS[kind]}, not {_show(detail['input'])}", node.place, hint)
    return Fault(f"{name}: {detail['msg']}", node.place)


def _show(value: object) -> str:
    """A value in users' words."""
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return repr(value)
        case _:
            return str(value)


def _near(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    listed = f"(known: {', '.join(known)})" if known else ""
    return f'did you mean "{close[0]}"?  {listed}' if close else listed.strip("()")


def _allowed(text: str) -> list[str]:
    return [word.strip().strip("'") for word in text.replace(" or ", ", ").split(",") if word.strip()]


def _where(path: tuple[str | int, ...], root: Node) -> str:
    """A path in users' words: `train.optimizer.lr`, `phase "coarse".length`."""
    node, words = root, ""
    for place, element in enumerate(path):
        value = node.value
        if isinstance(value, list) and isinstance(element, int) and element < len(value):
            node = value[element]
            name = node.value.get("name") if isinstance(node.value, dict) else None
            if place == 1 and path[0] == "phases" and name is not None and isinstance(name.value, str):
                words = f'phase "{name.value}"'
            else:
                words += f"[{element}]"
        elif isinstance(value, dict) and element in value:
            node = value[element]
            words += f".{element}" if words else str(element)
        elif place == len(path) - 1 and isinstance(element, str) and not element.endswith("]"):
            if isinstance(value, dict) and element in _tags(path[:-1]):
                continue
            words += f".{element}" if words else element
    return words or "the spec"


def _known_keys(path: tuple[str | int, ...]) -> list[str]:
    model = section_at(path)
    known = [] if model is None else [*model.model_fields]
    return sorted(known if path else [*known, "extends"])


def _count(path: tuple[str | int, ...], limits: dict[str, Any]) -> str:
    """How many items the list at a path has: `2 items`, `at least 1 item`."""
    model = section_at(path[:-1])
    field = model.model_fields.get(str(path[-1])) if model is not None else None
    bounds = {getattr(m, name) for m in (field.metadata if field else []) for name in _LENGTHS if hasattr(m, name)}
    number = next(limits[name] for name in _LENGTHS if name in limits)
    words = f"{number} item{'s' if number != 1 else ''}"
    pair = field is not None and len(field.metadata) == 2 and len(bounds) == 1
    return words if pair else f"at least {words}" if "min_length" in limits else f"at most {words}"


def _tags(path: tuple[str | int, ...]) -> list[str]:
    return [tag for tag, _ in tagged_sections(annotation_at(path))]
