"""What README and docs say can be run, and generated pages are current."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SPECS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "specs").rglob("*.yaml"))


def commands() -> list[str]:
    """Every `c2f ...` line inside a fenced block, comments cut."""
    found = []
    for page in PAGES:
        if page.name == "commands.md":
            continue
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
            lines = [line.split("  #")[0].split(" #")[0] for line in block.splitlines() if line.startswith("c2f ")]
            found += [part.strip() for line in lines for part in line.split("&&")]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("spec", SPECS)
def test_every_spec_checks_and_its_head_says_how_to_run_it(spec, c2f):
    text = (ROOT / spec).read_text()
    head = text[: text.index("\nc2f: 1" if "\nc2f: 1" in text else "\nextends:")]
    assert "Run:" in head or "# Run" in head
    assert re.search(rf"c2f (pretrain|finetune|distill) {re.escape(spec)}", head), f"{spec}: no command in its head"
    from c2ftool.spec.load import load_spec

    assert load_spec(str(ROOT / spec)).spec.about


@pytest.mark.parametrize("command", commands())
def test_commands_in_the_docs_parse(command):
    """Options exist and specs check; what needs data is not run."""
    import shlex

    from typer.main import get_command

    from c2ftool.cli.main import app
    from c2ftool.spec.load import load_spec

    words = shlex.split(command)[1:]
    group = get_command(app)
    name, rest = words[0], words[1:]
    sub = group.commands[name]
    if name == "specs":
        sub, rest = sub.commands[rest[0]], rest[1:]
    sub.make_context(name, list(rest), resilient_parsing=False)
    if name in ("pretrain", "finetune", "distill", "flops") and rest[0] not in ("SPEC", "my.yaml"):
        overrides = [word for word in rest[1:] if "=" in word and not word.startswith("-")]
        task = load_spec(rest[0], overrides).spec.task
        assert name in ("flops", task)


def test_generated_pages_are_current():
    from c2ftool.spec.reference import markdown

    assert (ROOT / "docs" / "specs.md").read_text() == markdown(), "run `make docs`"
    done = subprocess.run(
        [sys.executable, "-m", "typer", "c2ftool.cli.main", "utils", "docs", "--name", "c2f"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == (ROOT / "docs" / "commands.md").read_text().strip(), "run `make docs`"


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
