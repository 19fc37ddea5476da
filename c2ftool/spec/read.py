"""Reading YAML as data with places: every value knows its file, line and column.

YAML 1.2's core rules, not PyYAML's 1.1: `1e-4` is a number, `no` and `on` are words, `10:30` is text, `017` is 17.
Tags, anchors and aliases, duplicate keys, and files that are too large or too deep are refused before anything is
built.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from c2ftool.errors import MissingError, SpecError

MAX_BYTES, MAX_DEPTH, MAX_NODES = 1_000_000, 64, 200_000
_SHOWN = 160  # characters of a line in a message
_DIGITS = 20  # of a whole number; more is no count of anything
_SECOND = "but found another document"  # PyYAML's words


@dataclass(frozen=True)
class Place:
    """Where something was written. line and column count from 1; an argument has line 0 and its own number."""

    source: str
    line: int = 0
    column: int = 0
    text: str = ""
    width: int = 1
    argument: int = 0


@dataclass
class Node:
    """A value with its place. value: a mapping of nodes, a list of nodes, or a scalar."""

    value: Any
    place: Place
    key: Place | None = None  # of the key it stands at


class Fault(Exception):
    """One fault in a spec: a message at a place, and a hint."""

    def __init__(self, message: str, place: Place, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.place, self.hint = message, place, hint

    def render(self) -> str:
        """The fault as text: place and message, the line with a marker below it, the hint."""
        place = self.place
        if not place.line:
            lines = [f"{place.source}: {self.message}"]
        else:
            lines = [f"{place.source}:{place.line}:{place.column}: {self.message}"]
            number = str(place.line)
            # of a long line, the part around the fault; a tab is one place wide, as the column counts it
            cut = max(0, place.column - _SHOWN // 2) if len(place.text) > _SHOWN else 0
            shown = place.text[cut : cut + _SHOWN].replace("\t", " ")
            before = place.column - 1 - cut
            marks = "^" * max(1, min(place.width, len(shown) - before))
            lines.append(f"    {number} | {shown}".rstrip())
            lines.append(f"    {' ' * len(number)} | {' ' * before}{marks}")
        if self.hint:
            lines.append(f"    {self.hint}")
        return "\n".join(lines)


class Faults(Exception):
    """Several faults together."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = faults


def fail(faults: list[Fault]) -> SpecError:
    """All faults as one error: by file and line, then by argument."""

    def order(fault: Fault) -> tuple[bool, int, str, int, int]:
        place = fault.place
        return place.argument > 0, place.argument, place.source, place.line, place.column

    ordered = sorted(faults, key=order)
    unique = list(dict.fromkeys(f.render() for f in ordered))
    count = "1 fault" if len(unique) == 1 else f"{len(unique)} faults"
    return SpecError("\n\n".join(unique) + f"\n\n{count} found; nothing was run.")


class _Loader(yaml.SafeLoader):
    """SafeLoader, in Python (the C loader crashes on deep input), with YAML 1.2 core scalars."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as the base class declares it


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


SCALARS = _Loader.yaml_implicit_resolvers


def read_file(path: Path) -> Node:
    """The mapping in a spec file. Raises MissingError where there is none, Faults where it is not YAML data."""
    shown = str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MissingError(f"spec cannot be read: {error.strerror}", place=shown, cure="See `c2f specs ls`.") from None
    if len(raw) > MAX_BYTES:
        raise Faults([Fault(f"{len(raw)} bytes; a spec has at most {MAX_BYTES}", Place(shown))])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Faults([Fault(f"not UTF-8 text (byte {error.start})", Place(shown))]) from None
    node = read_nodes(text, shown)
    if not isinstance(node.value, dict):
        raise Faults([Fault("a spec is a mapping of sections", node.place, "begin with `c2f: 1`")])
    return node


def read_text(text: str, source: str) -> Node:
    """The value that YAML text holds. Raises SpecError with every fault."""
    try:
        return read_nodes(text, source)
    except Faults as found:
        raise fail(found.faults) from None


def read_nodes(text: str, source: str) -> Node:
    """The value that YAML text holds. Raises Faults."""
    lines = text.splitlines()

    def place(mark: Any, end: Any = None) -> Place:
        line = lines[mark.line] if mark.line < len(lines) else ""
        width = end.column - mark.column if end is not None and end.line == mark.line else len(line) - mark.column
        return Place(source, mark.line + 1, mark.column + 1, line, max(1, width))

    try:
        _survey(text, place)
        root = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = place(mark) if mark is not None else Place(source)
        words = "a second document begins" if error.problem == _SECOND else error.problem or error.context
        raise Faults([Fault(f"not YAML: {words}", where, "check brackets, quotes, colons and indents")]) from None
    except yaml.YAMLError as error:
        raise Faults([Fault(f"not YAML: {str(error).splitlines()[0]}", Place(source))]) from None
    except Fault as fault:
        raise Faults([fault]) from None
    if root is None:
        return Node(None, Place(source, 1, 1, lines[0] if lines else ""))
    faults: list[Fault] = []
    node = _node(root, None, place, faults)
    if faults:
        raise Faults(faults)
    return node


def _survey(text: str, place: Any) -> None:
    """A pass over the events, before nodes are built: refuses what could explode or hide."""
    depth = 0
    for nodes, event in enumerate(yaml.parse(text, _Loader)):
        if isinstance(event, yaml.AliasEvent):
            raise Fault(
                "aliases are not part of the language", place(event.start_mark), "write the value out, or use `extends`"
            )
        if getattr(event, "anchor", None):
            raise Fault(
                "anchors are not part of the language", place(event.start_mark), "write the value out, or use `extends`"
            )
        tag = getattr(event, "tag", None)
        if tag:
            short = tag.replace("tag:yaml.org,2002:", "!!")
            raise Fault(f"tag {short}: a spec is plain data", place(event.start_mark), "remove the tag")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise Fault(f"deeper than {MAX_DEPTH} levels, or more than {MAX_NODES} values", place(event.start_mark))


def _node(node: yaml.Node, key: Place | None, place: Any, faults: list[Fault]) -> Node:
    where = place(node.start_mark, node.end_mark)
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key_place = place(key_node.start_mark, key_node.end_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                faults.append(Fault("a key is a word", key_place))
                continue
            name = key_node.value
            if name in out:
                first = out[name].key
                faults.append(
                    Fault(f'key "{name}" is given twice', key_place, f"first in line {first.line if first else 0}")
                )
                continue
            out[name] = _node(value_node, key_place, place, faults)
        return Node(out, where, key)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(item, None, place, faults) for item in node.value], where, key)
    try:
        return Node(_scalar(node), where, key)
    except ValueError as error:
        faults.append(Fault(str(error), where))
        return Node(None, where, key)


def _scalar(node: yaml.Node) -> Any:
    text = node.value
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            if len(text) > _DIGITS:
                raise ValueError(f"a whole number of {len(text)} digits is too large")
            return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
        case "float":
            number = float(text.replace(".inf", "inf").replace(".nan", "nan").lower()) if "." in text else float(text)
            if not math.isfinite(number):
                raise ValueError(f"{text} is not a finite number")
            return number
        case _:
            return text


def plain(node: Node) -> Any:
    """The data without places."""
    if isinstance(node.value, dict):
        return {name: plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def at(node: Node, path: tuple[str | int, ...]) -> Node:
    """The node at a path; elements that are not there (tags of unions, names of validators) are passed over."""
    for element in path:
        value = node.value
        item = isinstance(value, list) and isinstance(element, int) and element < len(value)
        if item or (isinstance(value, dict) and element in value):
            node = value[element]
    return node
