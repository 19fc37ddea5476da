"""`c2f specs`: find, read, copy and check specs; list what a spec can name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from c2ftool.cli.options import Json, Overrides, SpecArgument, Traceback

specs = typer.Typer(
    help="Find, read, copy and check specs; list backbones, weights, data sets and metrics.",
    epilog="Next:  c2f specs cp eat my.yaml   c2f specs check my.yaml   c2f pretrain my.yaml",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@specs.command("ls")
def ls(
    backbones: Annotated[bool, typer.Option("--backbones", help="List backbones.")] = False,
    weights: Annotated[bool, typer.Option("--weights", help="List published weights.")] = False,
    datasets: Annotated[bool, typer.Option("--datasets", help="List prepared sets and layouts.")] = False,
    metrics: Annotated[bool, typer.Option("--metrics", help="List metrics.")] = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """List specs, or what a spec can name.

    \b
    c2f specs ls
    c2f specs ls --backbones
    """
    from c2ftool.cli import listings

    if backbones:
        rows = listings.backbones(full=json)
    elif weights:
        rows = listings.weights()
    elif datasets:
        rows = listings.datasets()
    elif metrics:
        rows = listings.metrics()
    else:
        rows = listings.specs()
    listings.print_rows(rows, json)


@specs.command("show")
def show(
    spec: SpecArgument,
    overrides: Overrides = None,
    full: Annotated[bool, typer.Option("--full", help="Every key, with its default and its meaning.")] = False,
    traceback: Traceback = False,
) -> None:
    """Print a spec with what it extends and the arguments put in.

    \b
    c2f specs show papers/eat_finetune_esc50
    c2f specs show eat train.batch=24 --full
    """
    from c2ftool.spec.describe import as_yaml, described
    from c2ftool.spec.load import load_spec

    loaded = load_spec(spec, overrides or [])
    typer.echo(described(loaded.spec) if full else as_yaml(loaded.data), nl=False)


@specs.command("cp")
def cp(
    spec: SpecArgument,
    destination: Annotated[
        str, typer.Argument(metavar="FILE", help="The new file, or a folder for it: one that is there, or ends in /.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    traceback: Traceback = False,
) -> None:
    """Copy a spec to edit it. What it extends is named so that it is found from the new place.

    \b
    c2f specs cp eat my.yaml
    c2f specs cp papers/eat_finetune_esc50 specs/mine/
    """
    from c2ftool.errors import UsageError
    from c2ftool.files import translate_failure, write_atomically
    from c2ftool.spec.find import require_spec
    from c2ftool.spec.load import load_file
    from c2ftool.spec.relocate import relocated

    source = require_spec(spec)
    load_file(source, [])
    target = Path(destination)
    if target.is_dir() or destination.endswith("/"):  # a Path forgets the slash
        target = target / source.name
    if target.exists() and not force:
        raise UsageError(f"{target} is there already", cure="Name another file, or add --force to replace it.")
    with translate_failure(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, relocated(source, target))
    typer.echo(str(target))


@specs.command("check")
def check(
    files: Annotated[list[str], typer.Argument(metavar="SPEC... [KEY=VALUE]...", help="Specs, and values to put in.")],
    traceback: Traceback = False,
) -> None:
    """Check specs without running them; names every fault and ends with 2 where there is one.

    \b
    c2f specs check my.yaml
    c2f specs check specs/*.yaml train.batch=48
    """
    from c2ftool.errors import C2FError, SpecError, UsageError
    from c2ftool.spec.load import load_spec

    names = [word for word in files if "=" not in word]
    overrides = [word for word in files if "=" in word]
    if not names:
        raise UsageError("no spec is named", cure="For example: c2f specs check my.yaml")
    faults: list[str] = []
    for name in names:
        try:
            load_spec(name, overrides)
            typer.echo(f"{name}: ok")
        except C2FError as error:
            faults.append(str(error))
    if faults:
        raise SpecError("\n\n".join(faults))


@specs.command("schema")
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="The reference page docs/specs.md instead.")] = False,
    traceback: Traceback = False,
) -> None:
    """Print the JSON Schema of the language, for editors.

    \b
    c2f specs schema > c2f.schema.json      # and in a spec: # yaml-language-server: $schema=c2f.schema.json
    """
    import json as js

    from c2ftool.spec import reference

    typer.echo(reference.markdown() if markdown else js.dumps(reference.schema(), indent=2), nl=not markdown)
