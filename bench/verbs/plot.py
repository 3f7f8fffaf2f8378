"""`python -m bench plot`: the newest results as pictures and as one page."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.verbs.common import RESULTS, ResultsOption
from walsvc.cli import exits, options, output, runner


def plot(
    *,
    results: ResultsOption = RESULTS,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where PNG files and index.html go.")] = RESULTS
    + "/plots",
) -> None:
    """Draw the newest results of limits, compare and growth: PNG files, and index.html with all of them inside."""

    async def verb() -> int:
        from bench.page import draw  # imports matplotlib, which the other verbs do without

        for path in draw(results, out):
            output.echo(path)
        return exits.OK

    runner.run(verb, loop=options.Loop.ASYNCIO.value)
