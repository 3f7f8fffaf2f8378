"""`python -m bench growth`: what becomes slower or larger as a log grows."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.environment import Environment, Results
from bench.growth import FULL, QUICK, run
from bench.verbs.common import RESULTS, DirectoryArgument, ResultsOption, scratch, tell_results, ticking
from walsvc.cli import exits, options, output, runner
from walsvc.config import WalConfig


def growth(
    path: DirectoryArgument = ".",
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Logs up to 1 GiB and 1,000 segments.")] = False,
    results: ResultsOption = RESULTS,
    loop: Annotated[options.Loop, typer.Option(help="Event loop; auto: uvloop where installed.")] = options.Loop.AUTO,
    disk: options.DiskName = options.DiskChoice.AUTO,
) -> None:
    """Measure append, open, seek and memory against length, segments and payload size.

    Each point is a log of its own, opened in a process of its own. Needs about 11 GiB below PATH for a while (2 GiB with
    --quick).
    """

    async def verb() -> int:
        where = Environment.of(path)
        lines = Results(results, "growth", where)
        config = WalConfig.of(None, {"disk": disk.value})
        with scratch(path) as place, ticking("growth") as tick:
            points = await run(place, QUICK if quick else FULL, config, results=lines, tick=tick)
        output.table(
            ("", "open ms", "append us", "seek us", "64 tasks, appends/s", "memory after opening"),
            [
                (
                    f"{point['value']:,} {'segments' if point['axis'] == 'segments' else 'B ' + point['axis'].split('_')[0]}",
                    f"{point['open_us'] / 1e3:,.1f}",
                    f"{point['append_us']:,.0f}",
                    f"{point['seek_us']:,.0f}",
                    f"{point['appends_per_s_64']:,.0f}",
                    output.size(point["memory_bytes"]),
                )
                for point in points
            ],
        )
        tell_results(lines, where, "point")
        return exits.OK

    runner.run(verb, loop=loop.value)
