"""Plant every bug and print what killed it. Exit code 1 if one survives, or if its text is no longer in the source."""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .catalogue import MUTANTS
from .nursery import Nursery

PIPE_COLUMNS = 140  # room for whole names where nobody resizes a window


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Plant bugs and see what finds them.")
    parser.add_argument("--only", default="", help="mutants whose name contains this text")
    parser.add_argument("--reasons", action="store_true", help="also print what each test said")
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    if not chosen:
        parser.error(f"no mutant has {options.only!r} in its name")
    started, console = time.monotonic(), Console()
    if not console.is_terminal:
        console = Console(width=PIPE_COLUMNS)
    table = Table(title="planted bugs")
    table.add_column("mutant", overflow="fold")
    table.add_column("killed by", overflow="fold")
    table.add_column("seconds", justify="right")
    killed = 0
    with (
        tempfile.TemporaryDirectory() as directory,
        closing(Nursery(Path(directory))) as nursery,
        console.status("the tests without any mutant") as status,
    ):
        if trouble := nursery.check(chosen):
            console.print(trouble, markup=False)
            console.print("The tests fail without any mutant.")
            return 1
        for mutant in chosen:
            status.update(mutant.name)
            outcome = nursery.run(mutant)
            killed += outcome.killer is not None
            found = outcome.killer.rpartition("::")[2] if outcome.killer else f"SURVIVED {outcome.reason}"
            table.add_row(mutant.name, Text(found), f"{outcome.seconds:.1f}")
            if options.reasons:
                console.print(Text(f"{mutant.name}: {outcome.reason}"))
    console.print(table)
    console.print(f"{killed} of {len(chosen)} killed in {time.monotonic() - started:.0f} s")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    raise SystemExit(main())
