"""The language described: JSON Schema for editors, and the reference page docs/specs.md. Both from the sections."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from c2ftool.spec.amounts import Duration, Length
from c2ftool.spec.base import Section
from c2ftool.spec.describe import as_yaml, meaning_of
from c2ftool.spec.root import Phase, Spec
from c2ftool.spec.shape import tagged_sections, union_members
from c2ftool.spec.train import Train


def schema() -> dict[str, Any]:
    """The JSON Schema of a spec file: for completion, unknown keys and types while writing.

    Looser than `c2f specs check` where a file alone cannot be judged: `extends` or a section above may supply what is
    needed, and `null` undoes what they give.
    """
    out = Spec.model_json_schema()
    out["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    out["title"] = "c2ftool spec"
    extends = {"type": "string", "description": "A spec to start from: a path beside this file, or a known name."}
    out["properties"] = {"c2f": out["properties"]["c2f"], "extends": extends, **out["properties"]}
    _loosen(out)
    normalize = out["$defs"]["Frontend"]["properties"]["normalize"]
    normalize["anyOf"].append({"const": "measured"})
    return out


def _loosen(node: Any) -> None:
    """Parts of sections are allowed: no key is required, and several kinds may fit what is given."""
    if isinstance(node, dict):
        if "properties" in node:
            node.pop("required", None)
            for name, child in node["properties"].items():
                if not any(option.get("type") == "null" for option in child.get("anyOf", [])):
                    kept = {k: child.pop(k) for k in ("title", "description", "default") if k in child}
                    node["properties"][name] = kept | {"anyOf": [child, {"type": "null"}]}
        if "oneOf" in node:
            node["anyOf"] = node.pop("oneOf")
            node.pop("discriminator", None)
        for child in node.values():
            _loosen(child)
    elif isinstance(node, list):
        for child in node:
            _loosen(child)


_HEAD = """# The spec language

*Written by `c2f specs schema --markdown`; change the sections under `c2ftool/spec/`, then `make docs`.*

A spec is one YAML file. Sections may stand in any order; written as below they read like a story: what and why, data,
model, loss, training, phases, what is measured.

- **Amounts carry a unit.** `5 epochs`, `400000 steps`, `100000 clips`, `25 %` (of the phase); `10 ms`, `0.48 s`,
  `30 min`. A bare number is a count, a rate or a ratio.
- **Scalars are YAML 1.2**: `1e-4` is a number, `no` is a word. Tags, anchors, aliases and duplicate keys are refused.
- **`extends: other`** starts from another spec (a path beside the file, or a name of `c2f specs ls`). Mappings merge,
  lists replace, phases merge by `name` (new names come after; where the spec names all phases its order holds); a
  mapping of another `kind` (or `method`) replaces the inherited one whole; `null` undoes what was inherited, as if the
  key were not given (in a phase: as above).
- **`KEY=VALUE`** arguments change values by dotted path, read by the same rules; items of a list by `name` or by
  number, from 0: `train.batch=48`, `phases.fine.length="3 epochs"`, `teachers.0.decay=0.999`, `augment.mixup=null`,
  `train.schedule="{kind: constant}"`.
- **A phase** repeats any of `batch, optimizer, schedule, clip, average, compression, masks, teachers, augment,
  frontend, enter`; what it repeats merges over the section above (a list replaces). On entering a later phase weights
  and EMA teacher carry over, fitted to its token grid; optimiser and schedule start afresh (`enter`). `stop` may end a
  phase before its `length`.
- **`data.folds`** or **`seeds`** make one command a study: a child run each, and their mean and spread.

`c2f specs check FILE` names every fault at once, `c2f specs show SPEC --full` prints a spec with every key and its
meaning, `c2f specs schema` the JSON Schema for editors. In the tables, a default left empty means "not given".
"""


def markdown() -> str:
    """The reference page."""
    parts = [_HEAD]
    done: set[type[Section]] = set()
    parts += _section("The file", Spec, done, skip_sections=True)
    for name, field in Spec.model_fields.items():
        for tag, section in _sections(field.annotation):
            if section is not Phase:
                parts += _section(f"`{name}`" + (f", {tag}" if tag else ""), section, done)
    parts += _section("`phases`", Phase, done)
    return "\n".join(parts).rstrip() + "\n"


def _section(title: str, section: type[Section], done: set[type[Section]], skip_sections: bool = False) -> list[str]:
    if section in done:
        return []
    done.add(section)
    out = [f"## {title}", "", (section.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "), ""]
    out += ["| key | type | default | meaning |", "|---|---|---|---|"]
    inner: list[str] = []
    own = [name for name in section.model_fields if name not in Train.model_fields or section is not Phase]
    for name in [*own, *(name for name in section.model_fields if name not in own)]:
        field = section.model_fields[name]
        meaning = meaning_of(section, name).replace("|", "\\|").replace("\n", " ")
        out.append(f"| `{name}` | {_type(field.annotation)}{_limits(field)} | {_default(field)} | {meaning} |")
        if skip_sections:
            continue
        for tag, child in _sections(field.annotation):
            inner += _section(f"{title.split(',')[0]} › `{name}`" + (f", {tag}" if tag else ""), child, done)
    return [*out, "", *inner]


def _sections(annotation: Any) -> list[tuple[str, type[Section]]]:
    tags = {section: tag for tag, section in tagged_sections(annotation)}
    found: list[tuple[str, type[Section]]] = []
    for option in union_members(annotation):
        inner = get_args(option)[0] if get_origin(option) is list else option
        for each in union_members(inner):
            if isinstance(each, type) and issubclass(each, Section):
                inner_tags = {section: tag for tag, section in tagged_sections(inner)}
                found.append((str(tags.get(each, inner_tags.get(each, ""))), each))
    return found


def _limits(field: FieldInfo) -> str:
    """The bounds of a value, or the number of a list's items."""
    words = {"gt": "above {}", "ge": "at least {}", "lt": "below {}", "le": "at most {}"}
    metadata = [*field.metadata]
    for option in (field.annotation, *get_args(field.annotation)):  # `int | None` keeps its bounds inside
        if get_origin(option) is Annotated:
            metadata += [m for extra in option.__metadata__ for m in getattr(extra, "metadata", [])]
    bounds = [text.format(f"{getattr(m, k):g}") for m in metadata for k, text in words.items() if hasattr(m, k)]
    return "".join(f", {bound}" for bound in bounds if "e+" not in bound)


def _type(annotation: Any) -> str:
    words: list[str] = []
    for option in union_members(annotation):
        if get_origin(option) is Literal:
            words += [f"`{json.dumps(v) if not isinstance(v, str) else v}`" for v in get_args(option)]
        elif get_origin(option) is list:
            words.append(f"list of {_type(get_args(option)[0])}")
        elif isinstance(option, type) and issubclass(option, Section):
            words.append("mapping")
        elif option in (Length, Duration):
            words.append("length" if option is Length else "duration")
        else:
            words.append(
                {int: "integer", float: "number", str: "text", bool: "`true`, `false`"}.get(option, str(option))
            )
    return ", ".join(dict.fromkeys(words))


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "needed"
    value = field.default
    if value is None:
        return ""
    if isinstance(value, Section):
        given = value.model_dump(mode="json", exclude_unset=True)
        return f"`{as_yaml(given, flow=True).strip()}`" if given else "as below"
    if isinstance(value, (Length, Duration, str)):
        return f"`{value}`" if str(value) else ""
    return f"`{json.dumps(value)}`"
