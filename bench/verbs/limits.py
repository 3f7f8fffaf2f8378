"""`python -m bench limits`: the targets P1 to P12, as ratios to what the device and asyncio can do, measured here and now."""

from __future__ import annotations

from statistics import median
from typing import Annotated

import typer

from bench.environment import Environment, Results
from bench.limits import Outcome, run
from bench.plan import FULL, QUICK, SHARED
from bench.targets import Verdict
from bench.verbs.common import RESULTS, DirectoryArgument, ResultsOption, scratch, tell_results, ticking
from walsvc.cli import exits, options, output, runner
from walsvc.config import WalConfig


def limits(
    path: DirectoryArgument = ".",
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything: about 2 min instead of 8.")] = False,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared", help="For a machine with other work: many short rounds; the quiet ones of each side count."
        ),
    ] = False,
    results: ResultsOption = RESULTS,
    loop: Annotated[options.Loop, typer.Option(help="Event loop; auto: uvloop where installed.")] = options.Loop.AUTO,
    disk: options.DiskName = options.DiskChoice.AUTO,
) -> None:
    """Hold the log against the limits of this device and of asyncio.

    Every figure is a ratio of two things measured in turn in this run: only those mean something on another machine. Needs
    about 12 GiB below PATH for a while (5 GiB with --quick) and a C compiler for an exact floor.
    """

    if quick and shared:
        raise typer.BadParameter("--quick and --shared are two ways to measure; choose one")
    plan = QUICK if quick else SHARED if shared else FULL

    async def verb() -> int:
        where = Environment.of(path)
        lines = Results(results, "limits", where)
        with scratch(path) as place, ticking("limits") as tick:
            config = WalConfig.of(None, {"disk": disk.value})
            outcome = await run(place, plan, config, environment=where, results=lines, tick=tick)
        show(outcome, where.loop)
        tell_results(lines, where, "round")
        return exits.OK

    runner.run(verb, loop=loop.value)


def show(outcome: Outcome, loop: str) -> None:
    """Print all verdicts for people."""
    columns = ("", "what", "ours", "limit", "held (range of the ratios)", "target", "")
    output.table(columns, [row(verdict) for verdict in outcome.verdicts])
    judged = [verdict.met for verdict in outcome.verdicts if verdict.met is not None]
    output.echo(f"{sum(judged)} of {len(judged)} met.")
    output.echo(f"disk: {outcome.disk} ({outcome.disk_reason}); loop: {loop}; the device measured in {outcome.device}")
    if not outcome.direct:
        output.echo("O_DIRECT does not work here: device and log both write through the page cache")


def row(verdict: Verdict) -> tuple[str, ...]:
    """One verdict as cells."""
    target, ratio = verdict.target, verdict.ratio
    what = target.what + (f" ({verdict.note})" if verdict.note else "")
    if ratio is None or verdict.held is None:
        return (target.id, what, "-", "-", "-", target.says(), "not measured")
    ours, limit = (median(values) for values in zip(*verdict.points, strict=True))
    ranged = f"{verdict.held:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
    said = {True: "met", False: "NOT MET", None: "not durable"}[verdict.met]
    return (target.id, what, amount(ours, target.unit), amount(limit, target.unit), ranged, target.says(), said)


def amount(value: float, unit: str) -> str:
    """A figure with its unit, in three or four digits."""
    if unit == "B/s":
        return f"{output.size(value)}/s"
    if unit == "records/s" and value >= 1e6:
        return f"{value / 1e6:.2f} M/s"
    if unit == "records/s":
        return f"{value:,.0f}/s"
    return f"{value:,.1f} {unit}"
