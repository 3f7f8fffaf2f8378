"""`python -m bench jobs`: worker processes at a queue, beside a group of a Redis stream."""

from __future__ import annotations

from statistics import median
from typing import Annotated

import typer

from bench.environment import Environment, Results
from bench.jobs import Plan, Turn, run
from bench.verbs.common import RESULTS, DirectoryArgument, ResultsOption, scratch, tell_results, ticking
from walsvc.cli import exits, options, output, runner

DEFAULT = Plan()
AT_ONCE = list(DEFAULT.at_once)


def jobs(
    path: DirectoryArgument = ".",
    *,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = DEFAULT.workers,
    at_once: Annotated[
        list[int], typer.Option(min=1, help="Jobs that a worker has at a time; may be repeated.")
    ] = AT_ONCE,
    size: Annotated[int, typer.Option("--size", "-s", min=0, help="Payload bytes.")] = DEFAULT.size,
    filled: Annotated[int, typer.Option("--jobs", min=1, help="Jobs in the queue before a turn.")] = DEFAULT.jobs,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each turn.")] = DEFAULT.seconds,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = DEFAULT.rounds,
    results: ResultsOption = RESULTS,
) -> None:
    """Measure jobs per second of worker processes: at a shared consumer of walsvc's server, and by XREADGROUP and XACK in Redis.

    Both on Unix sockets, both durable: Redis has appendfsync always. Needs redis-server on PATH.
    """

    async def verb() -> int:
        where = Environment.of(path)
        lines = Results(results, "jobs", where)
        plan = Plan(workers, tuple(at_once), size, filled, seconds, rounds, where.loop)
        with scratch(path) as place, ticking("jobs") as tick:
            measured = await run(place, plan, results=lines, tick=tick)
        output.table(
            (
                "at a time",
                "in",
                "walsvc jobs/s",
                "Redis jobs/s",
                "walsvc is faster by",
                "CPU us",
                "Redis CPU us",
                "less by",
            ),
            [
                (
                    str(each.at_once),
                    each.way,
                    f"{median(turn.per_s for turn in each.ours):,.0f}",
                    f"{median(turn.per_s for turn in each.theirs):,.0f}",
                    f"{each.ratio:.2f}",
                    cpu(each.ours),
                    cpu(each.theirs),
                    f"{each.cpu_ratio:.2f}",
                )
                for each in measured
            ],
            title=f"{workers} worker processes",
        )
        tell_results(lines, where, "turn")
        return exits.OK

    runner.run(verb, loop=options.Loop.AUTO.value)


def cpu(turns: list[Turn]) -> str:
    """CPU for a job: of the server, and of the workers."""
    return f"{median(turn.server_us for turn in turns):.0f} + {median(turn.workers_us for turn in turns):.0f}"
