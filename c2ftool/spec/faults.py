"""From pydantic's errors to faults a user can act on: place, plain words, the nearest valid word."""

from __future__ import annotations

import difflib
import json
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from c2ftool.spec.base import Section
from c2ftool.spec.read import Fault, Node, at, plain
from c2ftool.spec.root import Spec

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
        return Spec.model_validate_json(json.dumps(plain(root)))
    except ValidationError as error:
        raise Faults([_fault(root, detail) for detail in error.errors(include_url=False)]) from None


class Faults(Exception):
    """Several faults together."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = faults


def _fault(root: Node, detail: ErrorDetails) -> Fault:
    path = detail["loc"]
    node = at(root, path)
    kind, context = detail["type"], detail.get("ctx", {})
    name = _where(path, root)
    match kind:
        case "extra_forbidden":
            known = _known_keys(path[:-1])
            owner = _where(path[:-1], root)
            return Fault(f'unknown key "{path[-1]}" in {owner}', node.key or node.place, _near(str(path[-1]), known))
        case "missing":
            # the place is the mapping that lacks the key
            known = _known_keys(path[:-1])
            hint = f"known: {', '.join(known)}" if known else ""
            return Fault(f'{_where(path[:-1], root)} needs the key "{path[-1]}"', node.key or node.place, hint)
        case "literal_error":
            allowed = _allowed(str(context.get("expected", "")))
            return Fault(
                f"{name}: {_show(detail['input'])} is not one of its words",
                node.place,
                _near(str(detail["input"]), allowed),
            )
        case "union_tag_invalid":
            allowed = _allowed(str(context.get("expected_tags", "")))
            word = str(context.get("discriminator", "'kind'")).strip("'")
            tag = at(node, (word,))
            return Fault(
                f'{name}: unknown {word} "{context.get("tag")}"', tag.place, _near(str(context.get("tag")), allowed)
            )
        case "union_tag_not_found":
            word = str(context.get("discriminator", "'kind'")).strip("'")
            return Fault(f'{name} needs the key "{word}"', node.key or node.place, f"known: {', '.join(_tags(path))}")
        case "value_error":
            return Fault(f"{name}: {context['error']}", node.place)
        case "string_pattern_mismatch":
            return Fault(
                f"{name}: {_show(detail['input'])} is not a name", node.place, "use letters, digits, `-` and `_`"
            )
        case "too_short" | "too_long" | "string_too_short":
            few = "at least" if "short" in kind else "at most"
            count = context.get("min_length", context.get("max_length"))
            return Fault(f"{name} needs {few} {count} item{'s' if count != 1 else ''}", node.place)
    if kind in _BOUNDS:
        limit = next(v for k, v in context.items() if k in ("gt", "ge", "lt", "le"))
        return Fault(f"{name} must be {_BOUNDS[kind]} {limit}, not {_show(detail['input'])}", node.place)
    if kind in _NEEDS:
        hint = "write it without quotes" if isinstance(detail["input"], str) and kind != "list_type" else ""
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
            if place == 1 and path[0] == "phases" and name is not None:
                words = f'phase "{name.value}"'
            else:
                words += f"[{element}]"
        elif isinstance(value, dict) and element in value:
            node = value[element]
            words += f".{element}" if words else str(element)
        elif place == len(path) - 1 and isinstance(element, str) and not element.startswith("function-"):
            if isinstance(value, dict) and element in _tags(path[:-1]):
                continue
            words += f".{element}" if words else element
    return words or "the spec"


def _known_keys(path: tuple[str | int, ...]) -> list[str]:
    model = _model_at(path)
    return sorted(model.model_fields) if model is not None else []


def _tags(path: tuple[str | int, ...]) -> list[str]:
    return [tag for tag, _ in tagged_sections(_annotation_at(path))]


def _annotation_at(path: tuple[str | int, ...]) -> Any:
    """The type that the language has at a path (which may hold tags of unions)."""
    annotation: Any = Spec
    for element in path:
        options = union_members(annotation)
        if isinstance(element, int):
            annotation = next((get_args(o)[0] for o in options if get_origin(o) is list), None)
            continue
        tagged = dict(tagged_sections(annotation))
        if len(tagged) > 1 and element in tagged:
            annotation = tagged[element]
            continue
        models = [o for o in options if isinstance(o, type) and issubclass(o, Section)]
        annotation = next((m.model_fields[element].annotation for m in models if element in m.model_fields), None)
    return annotation


def _model_at(path: tuple[str | int, ...]) -> type[Section] | None:
    options = union_members(_annotation_at(path))
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)


def union_members(annotation: Any) -> list[Any]:
    """The members of a union, without None and Annotated."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return union_members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [o for arg in get_args(annotation) for o in union_members(arg)]
    return [] if annotation in (None, type(None)) else [annotation]


def tagged_sections(annotation: Any) -> list[tuple[str, Any]]:
    """(tag, section) of the sections that a type allows."""
    out = []
    for option in union_members(annotation):
        if isinstance(option, type) and issubclass(option, Section):
            for word in ("kind", "method"):
                field = option.model_fields.get(word)
                if field is not None and get_origin(field.annotation) is Literal:
                    out.append((get_args(field.annotation)[0], option))
    return out
