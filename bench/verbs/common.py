"""What the verbs share: where to measure, where results go, what is shown meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from bench.environment import Environment, Results
from walsvc.cli import output

RESULTS = "bench/results"
ResultsOption = Annotated[str, typer.Option("--results", metavar="DIR", help="Where the JSON lines go.")]
DirectoryArgument = Annotated[str, typer.Argument(metavar="[PATH]", help="A directory on the disk to measure.")]


@contextlib.contextmanager
def scratch(path: str) -> Iterator[str]:
    """A new directory below `path`, removed afterwards; its name is absolute."""
    place = tempfile.mkdtemp(prefix="walsvc-bench-", dir=os.path.abspath(path))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def ticking(what: str) -> Iterator[Callable[[str], None]]:
    """A function that shows what is being measured, on standard error when that is a terminal."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    shown = output.progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    if shown is None:
        yield lambda name: None
        return
    with shown:
        task = shown.add_task(what)
        yield lambda name: shown.update(task, description=f"{what}: {name}")


def tell_results(lines: Results, where: Environment, what: str) -> None:
    """Say where the results are, a line for every `what`, and how far they are to be trusted."""
    output.echo(f"{lines.path}: every {what}")
    if (warning := where.warning()) is not None:
        output.echo(warning)
