"""`c2f`: registers the commands and turns errors into messages and exit codes.

Exit codes: 0 done; 1 ran and failed, or an expectation was not met; 2 wrong use or wrong spec; 3 data or weights
missing or damaged; 75 preempted, state saved, queue again; 76 stopped by a guard, do not queue again; 130 by hand.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import typer

from c2ftool import __version__
from c2ftool.cli.evaluate import evaluate
from c2ftool.cli.export import export
from c2ftool.cli.flops import flops
from c2ftool.cli.prepare import prepare
from c2ftool.cli.specs import specs
from c2ftool.cli.train import distill, finetune, pretrain
from c2ftool.errors import C2FError, InterruptedByHand


def _stoppable(command: Callable[..., None]) -> Callable[..., None]:
    """The command, ended by Ctrl-C with 130 wherever it is; typer would make it 1."""

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            raise InterruptedByHand("stopped by hand") from None

    return run


app = typer.Typer(
    name="c2f",
    help="Train audio spectrogram transformers efficiently: one spec, one engine, the cost counted.",
    epilog="First steps:  c2f pretrain specs/eat.yaml   c2f specs ls   c2f prepare esc50 --from DIR",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.command()(_stoppable(prepare))
app.command()(_stoppable(pretrain))
app.command()(_stoppable(finetune))
app.command()(_stoppable(distill))
app.command()(_stoppable(evaluate))
app.command()(_stoppable(flops))
app.command()(_stoppable(export))
app.add_typer(specs, name="specs")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"c2f {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Train audio spectrogram transformers efficiently: one spec, one engine, the cost counted."""


def main() -> None:
    """Run the command line; ends the process with the stated exit code."""
    show = "--traceback" in sys.argv
    try:
        app()
    except C2FError as error:
        if show:
            raise
        print(f"error: {error}" if not _is_listing(error) else str(error), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped by hand", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, as `c2f specs ls | head` does
        sys.stderr.close()
        sys.exit(0)
    except Exception:
        import traceback

        traceback.print_exc()
        print(
            f"\nThis is a fault in c2f {__version__}, not in what you did. Please report it with the lines above, "
            "the command and the spec.",
            file=sys.stderr,
        )
        sys.exit(1)


def _is_listing(error: C2FError) -> bool:
    """Spec errors list their faults with places of their own and need no prefix."""
    from c2ftool.errors import SpecError

    return isinstance(error, SpecError)
