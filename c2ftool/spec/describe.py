"""Specs written back as YAML: as users write them, or whole, every key with its meaning."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from c2ftool.spec.base import Section
from c2ftool.spec.frontend import Statistics
from c2ftool.spec.read import SCALARS
from c2ftool.spec.root import Spec
from c2ftool.spec.shape import sections_of

_WIDTH = 110


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what our reader, not PyYAML's, would take for something else than text."""

    yaml_implicit_resolvers = SCALARS


def as_yaml(data: Any, flow: bool | None = None) -> str:
    """Data as YAML text that our reader gives back unchanged; leaf groups on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=_WIDTH)


def described(spec: Spec) -> str:
    """The whole spec as YAML: every key with its value and meaning; keys not given as comments."""
    return "\n".join(_lines(spec, "")) + "\n"


def meaning_of(section: type[Section], key: str) -> str:
    """What a key means: its description, or the first line of the section it holds."""
    field = section.model_fields[key]
    if field.description:
        return field.description
    if key in ("kind", "method"):
        return f"Names the {key}."
    held = sections_of(field.annotation)
    return (held[0].__doc__ or "").strip().split("\n")[0] if len(held) == 1 else ""


def _lines(section: Section, indent: str) -> list[str]:
    out: list[str] = []
    for key in type(section).model_fields:
        value = getattr(section, key)
        if not indent and out:
            out.append("")
        out += textwrap.wrap(meaning_of(type(section), key), _WIDTH, initial_indent=f"{indent}# ",
                             subsequent_indent=f"{indent}# ", break_on_hyphens=False)  # fmt: skip
        if value is None:
            out.append(f"{indent}# {key}:")
        elif isinstance(value, Statistics) and value.measured:
            out.append(f"{indent}{key}: measured")
        elif isinstance(value, Section):
            out += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], Section):
            out.append(f"{indent}{key}:")
            for item in value:
                inner = _lines(item, indent + "    ")
                first = next(n for n, line in enumerate(inner) if not line.lstrip().startswith("#"))
                inner[first] = f"{indent}  - {inner[first].lstrip()}"
                out += inner
        else:
            plain = section.model_dump(mode="json", include={key})
            out += [
                indent + line for line in as_yaml(plain, flow=None if isinstance(value, list) else False).splitlines()
            ]
    return out
