"""`walsvc bench plot`: the newest results as pictures and as one page."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, options, output, runner
from walsvc.cli.bench_limits import RESULTS, ResultsOption


def plot(
    *,
    results: ResultsOption = RESULTS,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where PNG files and index.html go.")] = RESULTS
    + "/plots",
) -> None:
    """Draw the newest results of limits, compare and growth: PNG files, and index.html with all of them inside.

    Needs matplotlib: pip install 'walsvc[plot]'.
    """

    async def verb() -> int:
        try:
            from walsvc.bench.page import draw
        except ModuleNotFoundError as error:
            if error.name != "matplotlib":
                raise
            output.complain("walsvc: plotting needs matplotlib: pip install 'walsvc[plot]'")
            return exits.OTHER
        for path in draw(results, out):
            output.echo(path)
        return exits.OK

    runner.run(verb, loop=options.Loop.ASYNCIO.value)
