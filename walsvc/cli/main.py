"""Entry point of `walsvc`. Imports typer and the verbs' signatures only: what a verb needs it imports when it runs.

`walsvc --help` must answer within 150 ms, so neither rich, asyncio, msgpack nor the log itself may be imported here or
at the head of a verb's file (a test looks at sys.modules). Help is therefore plain text (rich_markup_mode=None).
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
import typer.core

from walsvc.cli import exits, interrupt, output, runner
from walsvc.cli.append import append
from walsvc.cli.archive import archive
from walsvc.cli.backup import backup
from walsvc.cli.bench import bench
from walsvc.cli.cat import cat
from walsvc.cli.compact import compact
from walsvc.cli.consumers import consumers
from walsvc.cli.doctor import doctor
from walsvc.cli.health import health
from walsvc.cli.inspect import inspect
from walsvc.cli.migrate import migrate
from walsvc.cli.purge import purge
from walsvc.cli.repair import repair
from walsvc.cli.restore import restore
from walsvc.cli.retain import retain
from walsvc.cli.serve import serve
from walsvc.cli.tail import tail
from walsvc.cli.top import top
from walsvc.cli.topics import topics
from walsvc.cli.truncate import truncate
from walsvc.cli.verify import verify
from walsvc.cli.version import number, version
from walsvc.errors import WalError
from walsvc.visible import visible


class Verbs(typer.core.TyperGroup):
    """Shows what is wrong with the arguments as all else is shown: they may be names from anywhere."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the arguments in front of the verb."""
        with visible_messages():
            return super().make_context(*arguments, **options)

    def invoke(self, *arguments: Any, **options: Any) -> Any:
        """Read the verb's, and run it."""
        with visible_messages():
            return super().invoke(*arguments, **options)


@contextlib.contextmanager
def visible_messages() -> Iterator[None]:
    """Makes the message of a usage error fit to be shown."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message") and isinstance(message := getattr(error, "message", None), str):
            error.message = visible(message)  # type: ignore[attr-defined]
        raise


app: typer.Typer = typer.Typer(
    name="walsvc",
    cls=Verbs,
    help="A durable log: append records, read them back, look inside, check, measure.",
    epilog=exits.epilog(),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.echo(f"walsvc {number()}")
        raise typer.Exit


@app.callback()
def _common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


SEE_EXIT_CODES = "Exit codes: walsvc --help."

for _verb in (
    append,
    cat,
    tail,
    top,
    topics,
    inspect,
    verify,
    repair,
    backup,
    restore,
    doctor,
    truncate,
    purge,
    retain,
    compact,
    migrate,
    serve,
    health,
    version,
):
    app.command(epilog=SEE_EXIT_CODES)(_verb)
app.add_typer(archive, name="archive")
app.add_typer(bench, name="bench")
app.add_typer(consumers, name="consumers")


def main() -> None:
    """Run the command line on sys.argv and exit with a code of walsvc.cli.exits."""
    interrupt.replace(signal.default_int_handler, interrupt.end)
    output.open_closed_streams()
    stdout = sys.stdout
    try:
        try:
            app(prog_name="walsvc")
        except SystemExit as leaving:
            if sys.stdout is not stdout:  # typer met a broken pipe, and put something that bears it in its place
                raise BrokenPipeError from None
            if leaving.code not in (None, exits.OK):
                raise
        # The last lines may still be in the buffer: here a reader that is gone can be answered, at the very end not.
        output.flush()
    except BrokenPipeError:
        output.abandon_stdout()
        sys.exit(exits.BROKEN_PIPE)
    except (WalError, OSError) as error:
        sys.exit(runner.report(error))
    except Exception as error:  # noqa: BLE001  a defect: told in one line, with its place
        sys.exit(runner.report_unexpected(error))
