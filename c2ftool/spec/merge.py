"""Putting specs together: `extends`, and what a phase repeats of the sections above it.

Mappings merge, lists replace, phases merge by `name`, in the order of the extending spec if it names all of them. A
mapping whose `kind` (or `method`) differs from the inherited one replaces it whole: the settings of one kind mean
nothing to another. `null` undoes what was inherited: the key counts as not given.
"""

from __future__ import annotations

from pathlib import Path

from c2ftool.spec.find import find_spec, nearest
from c2ftool.spec.read import Fault, Faults, Node, read_file

# What a phase may repeat: of `train`, and of the sections of the same name.
TRAIN_KEYS = ("batch", "optimizer", "schedule", "clip", "average")
SECTION_KEYS = ("compression", "masks", "augment", "frontend", "enter")


def read_merged(path: Path, seen: tuple[Path, ...] = ()) -> Node:
    """The spec at a path with everything it extends. Raises MissingError or Faults for what cannot be read."""
    top = read_file(path)
    extends = top.value.pop("extends", None)
    if extends is None or extends.value is None:
        return top
    if not isinstance(extends.value, str):
        raise Faults([Fault("`extends` is the path or the name of one spec", extends.place)])
    beside = path.parent / extends.value
    here = path.resolve()
    base_path = beside if beside.is_file() else find_spec(extends.value)
    if base_path is None:
        near = nearest(extends.value)
        hint = f'did you mean "{near}"?' if near else "`c2f specs ls` lists the known ones"
        message = f"no spec {extends.value!r} beside this file or among the known ones"
        raise Faults([Fault(message, extends.place, hint)])
    if base_path.resolve() in (*seen, here):
        raise Faults([Fault(f"{extends.value!r} extends this file: a circle", extends.place)])
    return merge(read_merged(base_path, (*seen, here)), top)


def merge(base: Node, top: Node, at_phases: bool = False) -> Node:
    """`base` with what `top` says."""
    if isinstance(base.value, dict) and isinstance(top.value, dict):
        if kind_of(base) is not None and kind_of(top) is not None and kind_of(base) != kind_of(top):
            return top
        out = dict(base.value)
        for name, node in top.value.items():
            out[name] = merge(out[name], node, name == "phases") if name in out else node
        return Node(out, top.place, top.key)
    if at_phases and isinstance(base.value, list) and isinstance(top.value, list):
        return _phases(base, top)
    return top


def _phases(base: Node, top: Node) -> Node:
    """Phases of `top` change those of the same name in place; new names come after.

    Where `top` names all of them its order holds: a coarse phase can be put in front.
    """
    out = list(base.value)
    places = {name: place for place, node in enumerate(out) if (name := _name(node)) is not None}
    for node in top.value:
        place = places.get(_name(node) or "")
        if place is None:
            out.append(node)
        else:
            out[place] = merge(out[place], node)
    order = [_name(node) for node in top.value]
    if None not in order and places.keys() <= set(order) and len(places) == len(base.value):
        out.sort(key=lambda node: order.index(_name(node)))
    return Node(out, top.place, top.key)


def expand_phases(root: Node) -> Node:
    """The spec with what each phase repeats merged over the section above: `optimizer: {lr: 1e-4}` keeps the rest."""
    phases = root.value.get("phases")
    if phases is None or not isinstance(phases.value, list):
        return root
    train = root.value.get("train")
    above = {k: root.value[k] for k in SECTION_KEYS if k in root.value}
    if train is not None and isinstance(train.value, dict):
        above |= {k: train.value[k] for k in TRAIN_KEYS if k in train.value}

    def expanded(phase: Node) -> Node:
        if not isinstance(phase.value, dict):
            return phase
        merged = {k: merge(above[k], v) if k in above and v.value is not None else v for k, v in phase.value.items()}
        return Node(merged, phase.place, phase.key)

    out = dict(root.value)
    out["phases"] = Node([expanded(p) for p in phases.value], phases.place, phases.key)
    return Node(out, root.place, root.key)


def kind_of(node: Node) -> object:
    """What a mapping says of its kind; None where it says nothing or is no mapping."""
    if not isinstance(node.value, dict):
        return None
    for word in ("kind", "method"):
        if word in node.value:
            return node.value[word].value
    return None


def _name(node: Node) -> str | None:
    name = node.value.get("name") if isinstance(node.value, dict) else None
    return name.value if name is not None and isinstance(name.value, str) else None
