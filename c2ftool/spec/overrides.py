"""`KEY=VALUE` arguments: values by dotted path, read by the same rules as the files."""

from __future__ import annotations

from dataclasses import replace

from c2ftool.spec.merge import kind_of, merge
from c2ftool.spec.read import Fault, Faults, Node, Place, read_nodes


def apply(root: Node, arguments: list[str], faults: list[Fault]) -> Node:
    """The spec with the arguments' values; list items by index (from 0) or by `name`. Adds to `faults`.

    A mapping given as value merges with what is there, a list replaces it; a value of another `kind` (or `method`)
    replaces the whole mapping, as under `extends`.
    """
    for number, argument in enumerate(arguments, 1):
        place = Place(f"argument {number}: {argument}", argument=number)
        key, equals, text = argument.partition("=")
        if not equals or not key.strip():
            faults.append(Fault("not KEY=VALUE", place, "for example: train.batch=48"))
            continue
        try:
            value = _placed(read_nodes(text, place.source), place)
            root = _set(root, key.strip().split("."), value, place)
        except Faults as found:
            # columns count within the value, and users see the whole argument
            faults += [Fault(fault.message, place, fault.hint) for fault in found.faults]
        except Fault as fault:
            faults.append(fault)
    return root


def _placed(node: Node, place: Place) -> Node:
    """The node with the argument as the place of everything in it."""
    if isinstance(node.value, dict):
        return Node({k: _placed(v, place) for k, v in node.value.items()}, place, place)
    if isinstance(node.value, list):
        return Node([_placed(v, place) for v in node.value], place, place)
    return Node(node.value, place, place)


def _set(node: Node, path: list[str], value: Node, place: Place) -> Node:
    if not path:
        return merge(node, value)
    head, rest = path[0], path[1:]
    if not head:
        raise Fault("a part of the key is empty", place, "for example: train.optimizer.lr=1e-4")
    if isinstance(node.value, list):
        index = _index(node, head, place)
        items = list(node.value)
        items[index] = _set(items[index], rest, value, place)
        return Node(items, node.place, node.key)
    if node.value is not None and not isinstance(node.value, dict):
        raise Fault(f'there is nothing below a value: "{head}"', place)
    entries: dict[str, Node] = dict(node.value or {})
    entries[head] = _set(entries.get(head, Node(None, place, place)), rest, value, place)
    out = replace(node, value=entries)  # keeps its own place: a fault elsewhere in it is not the argument's
    if head in ("kind", "method") and kind_of(node) not in (None, kind_of(out)):
        return replace(out, value={head: entries[head]})
    return out


def _index(node: Node, head: str, place: Place) -> int:
    names = [
        item.value["name"].value if isinstance(item.value, dict) and "name" in item.value else None
        for item in node.value
    ]
    if head in names:
        return names.index(head)
    if head.isdecimal() and int(head) < len(node.value):
        return int(head)
    known = ", ".join(str(n) for n in names if n is not None)
    hint = f"known: {known}" if known else f"it has {len(node.value)} items, numbered from 0"
    raise Fault(f'the list has no item "{head}"', place, hint)
