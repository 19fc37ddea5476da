"""Imports run one way, and starting is cheap."""

import ast
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "c2ftool"

# What each part may import of c2ftool; what is not named is refused. Siblings do not import each other.
BOTTOM = {"errors", "files"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "draws": set(),
    # when events are, as frames: sampling, labels and metrics agree on it
    "events": set(),
    # below models: blocks are built with what stands beside them
    "adapters": BOTTOM | {"spec"},
    "compression": BOTTOM | {"spec"},
    # the grid arithmetic is pure integers: specs are checked and resolved with it
    "spec": BOTTOM | {"compression"},
    # pooling may belong to the log-mel
    "frontend": BOTTOM | {"spec", "draws", "compression"},
    "masks": BOTTOM | {"spec", "draws", "compression"},
    "augment": BOTTOM | {"spec", "draws"},
    "models": BOTTOM | {"adapters", "spec", "draws", "frontend", "masks", "augment", "compression"},
    # `prepare` measures the statistics of the log-mel with the front end itself
    "data": BOTTOM | {"spec", "draws", "events", "frontend"},
    "metrics": BOTTOM | {"spec", "events"},
    "costs": BOTTOM | {"spec"},
    "objectives": BOTTOM | {"adapters", "spec", "draws", "frontend", "masks", "augment", "compression", "models"},
    "engine": None,
    "cli": None,
    "__main__": None,
}


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> set[str]:
    """The parts of c2ftool that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" if node.module == "c2ftool" else node.module for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("c2ftool.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    part = part_of(path)
    if part == "__init__":
        return
    allowed = ALLOWED[part]
    found = imports(path) - {part}
    if allowed is None:
        assert part != "engine" or "cli" not in found
        return
    assert found <= allowed, f"{part} may not import {sorted(found - allowed)}"


def test_files_have_one_thought():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
        assert path.stem not in {"utils", "helpers", "common", "misc", "manager"}


# pydantic is not named: typer itself loads its front when it is installed
HEAVY = [
    "torch",
    "timm",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "soundfile",
    "yaml",
    "c2ftool.spec.root",
]


@pytest.mark.parametrize(
    "arguments",
    [[], ["prepare"], ["pretrain"], ["finetune"], ["evaluate"], ["flops"], ["export"], ["specs"], ["specs", "check"]],
    ids=" ".join,
)
def test_help_loads_nothing_heavy_and_shows_an_example(arguments):
    code = (
        "import sys, json, c2ftool.cli.main as m\n"
        f"sys.argv = ['c2f', *{arguments!r}, '--help']\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        f"print('LOADED', json.dumps([x for x in {HEAVY!r} if x in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    text, _, loaded = done.stdout.rpartition("LOADED ")
    assert json.loads(loaded) == []
    assert "c2f " in text and "Usage" in text


def test_checking_a_spec_loads_no_torch():
    code = (
        "import sys; from c2ftool.spec.load import load_spec; load_spec('specs/eat.yaml');"
        "print([x for x in ('torch', 'numpy', 'timm', 'mlflow') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_takes_at_most_two_and_a_half_times_importing_typer():
    def seconds(*command: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    assert seconds("-m", "c2ftool", "--help") <= 2.5 * seconds("-c", "import typer")
