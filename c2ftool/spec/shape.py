"""The shape of the language, read off the sections: what stands where, which kinds there are."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from c2ftool.spec.base import Section
from c2ftool.spec.root import Spec


def home(key: str) -> str | None:
    """Where in the language a key stands, if in one place only."""

    def homes(section: type[Section], name: str) -> set[str]:
        found = {name} if key in section.model_fields and name else set()
        for word, field in section.model_fields.items():
            for child in union_members(field.annotation):
                if word != "phases" and isinstance(child, type) and issubclass(child, Section):
                    found |= homes(child, f"{name}.{word}" if name else word)
        return found

    places = homes(Spec, "")
    return places.pop() if len(places) == 1 else None


def section_of_kind(kind: object, annotation: Any) -> type[Section] | None:
    """The section that a mapping is to be: the only one, or the one of its kind."""
    sections = [o for o in union_members(annotation) if isinstance(o, type) and issubclass(o, Section)]
    tagged = dict(tagged_sections(annotation))
    return tagged.get(str(kind)) if len(sections) > 1 else next(iter(sections), None)


def annotation_at(path: tuple[str | int, ...]) -> Any:
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


def section_at(path: tuple[str | int, ...]) -> type[Section] | None:
    """The section that the language has at a path; None where there is none."""
    options = union_members(annotation_at(path))
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


def sections_of(annotation: Any) -> list[type[Section]]:
    """The sections that a type allows, those of a list's items included."""
    out: list[type[Section]] = []
    for option in union_members(annotation):
        if get_origin(option) is list:
            out += sections_of(get_args(option)[0])
        elif isinstance(option, type) and issubclass(option, Section):
            out.append(option)
    return out
