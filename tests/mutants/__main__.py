"""Plant every bug and print what killed it. Exit code 1 if one survives, or if its text is no longer in the source."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .catalogue import MUTANTS
from .nursery import Nursery


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Plant bugs and see what finds them.")
    parser.add_argument("--only", default="", help="mutants whose name contains this text")
    options = parser.parse_args(arguments)
    console, started = Console(), time.monotonic()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    table = Table(title="planted bugs", caption_justify="left")
    table.add_column("mutant")
    table.add_column("killed by")
    table.add_column("seconds", justify="right")
    with tempfile.TemporaryDirectory() as directory:
        nursery = Nursery(Path(directory))
        if trouble := nursery.check(chosen):
            console.print(trouble, markup=False)
            console.print("The tests fail without any mutant.")
            return 1
        killed = 0
        for mutant in chosen:
            outcome = nursery.run(mutant)
            killed += outcome.killer is not None
            found = outcome.killer.rpartition("::")[2] if outcome.killer else f"SURVIVED {outcome.reason}"
            table.add_row(mutant.name, found, f"{outcome.seconds:.1f}")
            if not console.is_terminal:
                print(f"{mutant.name}: {found}: {outcome.reason}", flush=True)
    console.print(table)
    console.print(f"{killed} of {len(chosen)} killed in {time.monotonic() - started:.0f} s")
    return 0 if killed == len(chosen) and chosen else 1


if __name__ == "__main__":
    raise SystemExit(main())
