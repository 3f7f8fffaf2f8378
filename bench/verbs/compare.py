"""`python -m bench compare`: walsvc beside everything else that one might use instead."""

from __future__ import annotations

from statistics import median
from typing import Annotated

import typer

from bench.compare import Comparison, Table, names, run, unmet
from bench.environment import Environment, Results
from bench.peers import Workshop
from bench.verbs.common import RESULTS, DirectoryArgument, ResultsOption, scratch, tell_results, ticking
from walsvc.cli import exits, options, output, runner


def compare(
    path: DirectoryArgument = ".",
    *,
    tasks: Annotated[list[int], typer.Option("--tasks", "-t", min=1, help="Concurrent appends; may be repeated.")] = [  # noqa: B006
        1,
        64,
        1024,
    ],
    size: Annotated[int, typer.Option("--size", "-s", min=0, help="Payload bytes.")] = 256,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each turn.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each peer.")] = 3,
    only: Annotated[list[str] | None, typer.Option("--only", help="A peer by its name; may be repeated.")] = None,
    collected: Annotated[
        bool, typer.Option(help="Also put a collector of ours in front of Python libraries that can write batches.")
    ] = True,
    service: Annotated[
        bool, typer.Option("--service", help="walsvc behind its Unix socket, against the peers that are servers.")
    ] = False,
    peers: Annotated[str, typer.Option("--peers", metavar="DIR", help="Where bench/peers is.")] = "bench/peers",
    results: ResultsOption = RESULTS,
) -> None:
    """Measure walsvc and its peers in turns on the same disk.

    bench/peers/install.sh installs them first. Every turn is a process of its own in a fresh directory below PATH, and each
    peer's turn follows one of walsvc's. A peer that is not installed, or fails, is named with the reason.
    """

    async def verb() -> int:
        if unknown := set(only or ()) - set(names()):
            raise typer.BadParameter(f"no peer is called {min(unknown)!r}; known: {', '.join(names())}")
        where = Environment.of(path)
        lines = Results(results, "compare-service" if service else "compare", where)
        comparison = Comparison(
            tasks=tuple(tasks),
            size=size,
            seconds=seconds,
            rounds=rounds,
            only=frozenset(only) if only else None,
            collected=collected,
            service=service,
        )
        with scratch(path) as place, ticking("compare") as tick:
            table = await run(place, Workshop.at(peers), comparison, results=lines, tick=tick)
        show(table)
        for line in unmet(table, service=service):
            output.echo(line)
        tell_results(lines, where, "turn")
        return exits.OK

    runner.run(verb, loop=options.Loop.AUTO.value)


def show(table: Table) -> None:
    """Print for each number of tasks who did what, fastest first, and who was skipped."""
    for tasks in table.tasks:
        if tasks not in table.ours:
            continue
        rows = [(median(table.ours[tasks].per_s), table.label, table.ours[tasks], "")]
        for label in table.peers:
            turns, ratio = table.turns.get((label, tasks)), table.ratio(label, tasks)
            if turns is not None and ratio is not None:
                said = f"{ratio:.1f}"
                rows.append((median(turns.per_s), label, turns, said))
        rows.sort(key=lambda row: -row[0])
        output.table(
            ("", "appends/s", "range", "p50 us", "p99 us", f"{table.label} is faster by"),
            [
                (
                    label,
                    f"{middle:,.0f}",
                    f"{min(turns.per_s):,.0f} to {max(turns.per_s):,.0f}",
                    f"{median(turns.p50_us):,.0f}",
                    f"{median(turns.p99_us):,.0f}",
                    said,
                )
                for middle, label, turns, said in rows
            ],
            title=f"{tasks} concurrent durable appends",
        )
        output.echo()
    for label, reason in table.skipped.items():
        output.echo(f"skipped: {label}: {reason}")
