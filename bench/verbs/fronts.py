"""`python -m bench fronts`: the fronts of walsvc's server, beside Redis and beside bare aiohttp handlers."""

from __future__ import annotations

from statistics import median
from typing import Annotated

import typer

from bench.environment import Environment, Results
from bench.fronts import Plan, run
from bench.verbs.common import RESULTS, DirectoryArgument, ResultsOption, scratch, tell_results, ticking
from walsvc.cli import exits, options, output, runner

DEFAULT = Plan()
PIPELINES = list(DEFAULT.pipelines)


def fronts(
    path: DirectoryArgument = ".",
    *,
    at_once: Annotated[int, typer.Option(min=1, help="Connections.")] = DEFAULT.at_once,
    pipelines: Annotated[
        list[int], typer.Option("--pipeline", min=1, help="Entries under way on a connection; may be repeated.")
    ] = PIPELINES,
    size: Annotated[int, typer.Option("--size", "-s", min=0, help="Payload bytes.")] = DEFAULT.size,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each turn.")] = DEFAULT.seconds,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = DEFAULT.rounds,
    results: ResultsOption = RESULTS,
) -> None:
    """Measure the fronts: XADD by redis-benchmark and redis-py, beside Redis; and POST, beside a bare aiohttp handler and one that
    appends to an embedded log.

    Both servers of XADD are durable: Redis has appendfsync always. Needs redis-server and redis-benchmark on PATH.
    """

    async def verb() -> int:
        where = Environment.of(path)
        lines = Results(results, "fronts", where)
        plan = Plan(at_once, tuple(pipelines), size, seconds, rounds, where.loop)
        with scratch(path) as place, ticking("fronts") as tick:
            measured = await run(place, plan, results=lines, tick=tick)
        output.table(
            ("client", "beside", "walsvc/s", "other/s", "walsvc is faster by", "CPU us", "other CPU us", "less by"),
            [
                (
                    each.client,
                    each.other,
                    f"{median(turn.per_s for turn in each.ours):,.0f}",
                    f"{median(turn.per_s for turn in each.theirs):,.0f}",
                    f"{each.ratio:.2f}",
                    f"{median(turn.server_us for turn in each.ours):.1f}",
                    f"{median(turn.server_us for turn in each.theirs):.1f}",
                    f"{each.cpu_ratio:.2f}",
                )
                for each in measured
            ],
            title=f"{at_once} connections, {size} B",
        )
        tell_results(lines, where, "turn")
        return exits.OK

    runner.run(verb, loop=options.Loop.AUTO.value)
