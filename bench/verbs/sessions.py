"""`python -m bench sessions`: what a topic for each session costs, when it is over."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.environment import Environment, Results
from bench.sessions import AFTER_BYTES, run
from bench.verbs.common import RESULTS, DirectoryArgument, ResultsOption, scratch, tell_results, ticking
from walsvc.cli import exits, options, output, runner
from walsvc.config import MIB, WalConfig


def sessions(
    path: DirectoryArgument = ".",
    *,
    topics: Annotated[int, typer.Option(min=1, help="How many there are in all, each with one record.")] = 1_000_000,
    segment_bytes: Annotated[int, typer.Option(min=65_536, help="Length of the log's segments.")] = 64 * MIB,
    results: ResultsOption = RESULTS,
    loop: Annotated[options.Loop, typer.Option(help="Event loop; auto: uvloop where installed.")] = options.Loop.AUTO,
    disk: options.DiskName = options.DiskChoice.AUTO,
) -> None:
    """Measure what short-lived topics cost: 1,000 at a time, truncated, deleted, or kept.

    What is written while they come and go, what opening costs when all are over, and what is written then for 8 MiB of payloads.
    """

    async def verb() -> int:
        where = Environment.of(path)
        lines = Results(results, "sessions", where)
        config = WalConfig.of(None, {"disk": disk.value, "segment_bytes": segment_bytes})
        with scratch(path) as place, ticking("sessions") as tick:
            costs = await run(place, topics, config, results=lines, tick=tick)
        output.table(
            ("", "topics", "topics/s", "written", "of payload", "log", "open ms", "read", "8 MiB more"),
            [
                (
                    cost.way,
                    f"{cost.topics:,}",
                    f"{cost.topics / cost.seconds:,.0f}",
                    output.size(cost.written_bytes),
                    f"{cost.written_bytes / cost.record_bytes:.1f}",
                    output.size(cost.log_bytes),
                    f"{cost.open_ms:,.1f}",
                    output.size(cost.open_bytes),
                    f"{cost.after_bytes / AFTER_BYTES:.2f}",
                )
                for cost in costs
            ],
        )
        tell_results(lines, where, "point")
        return exits.OK

    runner.run(verb, loop=loop.value)
