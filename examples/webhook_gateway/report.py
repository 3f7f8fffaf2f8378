"""What the demonstration prints at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from load import Outcome
from rich.console import Console
from rich.table import Table
from verdict import Verdict


@dataclass
class Run:
    """What was measured. `recoveries` has one entry for each start of the gateway and one for the check at the end."""

    clients: int
    recoveries: list[dict[str, Any]]
    stats: list[dict[str, Any]]
    restarted_ns: int
    outcomes: list[Outcome]
    refused: int
    rejected: list[str]
    seconds: float

    def answered(self, life: int) -> list[Outcome]:
        """The events that were answered in the gateway's given life (0 or 1)."""
        return [each for each in self.outcomes if each.lsn and (each.answered_ns > self.restarted_ns) == bool(life)]


def percentile(values: Sequence[int], share: float) -> int:
    """The value that `share` of the values do not exceed (nearest rank); `values` are sorted, 0 where there are none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0


def rate(answered: Sequence[Outcome]) -> float:
    """Events per second from the first answer to the last."""
    times = [each.answered_ns for each in answered]
    return len(times) / max((max(times) - min(times)) / 1e9, 1e-9) if times else 0.0


def milliseconds(values: Sequence[int]) -> str:
    """p50 and p99 of microseconds."""
    ordered = sorted(values)
    return f"{percentile(ordered, 0.5) / 1000:.1f} / {percentile(ordered, 0.99) / 1000:.1f} ms"


def recovered(recovery: dict[str, Any]) -> str:
    """A recovery report: the records, and what was found."""
    if recovery["created"]:
        return "new log"
    found = "; ".join(finding["message"] for finding in recovery["findings"])
    records = f"LSN {recovery['first_lsn']:,} to {recovery['next_lsn'] - 1:,}"
    return f"{records}\n    {found or ('closed in order' if recovery['clean'] else 'not closed in order')}"


def measured(run: Run) -> Table:
    """The figures of both lives side by side."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("before the kill", justify="right")
    table.add_column("after the restart", justify="right")
    answered = [run.answered(life) for life in (0, 1)]
    stats = run.stats

    def row(name: str, values: Sequence[str]) -> None:
        table.add_row(name, *values)

    row("events answered", [f"{len(each):,}" for each in answered])
    row("events per second", [f"{rate(each):,.0f}" for each in answered])
    row("answer, p50 / p99", [milliseconds([each.latency_us for each in part]) for part in answered])
    row("append in it, p50 / p99", [milliseconds([each.append_us for each in part]) for part in answered])
    row("syncs", [f"{each['syncs']:,}" for each in stats])
    row("records per sync", [f"{each['records'] / max(each['syncs'], 1):,.1f}" for each in stats])
    row("most records in one sync", [f"{each['group_records_max']:,}" for each in stats])
    return table


def show(run: Run, verdict: Verdict, console: Console) -> bool:
    """Print everything; True when nothing is wrong."""
    last = run.stats[-1]
    console.rule("measured")
    console.print(measured(run))
    direct = "O_DIRECT" if last["direct"] else "buffered"
    console.print(f"disk: {last['disk']}, {direct}, blocks of {last['block_bytes']} B", highlight=False)
    console.print(f"    {last['disk_reason']}", highlight=False, markup=False)
    console.rule("recovery")
    for name, recovery in zip(("first start", "restart", "check at the end"), run.recoveries, strict=True):
        console.print(f"{name}: {recovered(recovery)}", highlight=False, markup=False)
    console.rule("every event against the log")
    unknown = f"{verdict.unknown:,} without an answer (killed in between), {verdict.unknown_present:,} of them stored"
    console.print(f"{verdict.answered:,} answered, {unknown}", highlight=False)
    console.print(f"{verdict.intact:,} answered events at their LSN, byte for byte", highlight=False)
    for name, fault in verdict.faults().items():
        console.print(f"{fault.count:,} {name}", style="bold red" if fault.count else "", highlight=False)
        for example in fault.examples:
            console.print(f"    {example}", style="red", highlight=False, markup=False)
    return conclude(run, verdict, console)


def conclude(run: Run, verdict: Verdict, console: Console) -> bool:
    """The last line, and whether the demonstration succeeded."""
    idle = [name for name, life in (("before the kill", 0), ("after the restart", 1)) if not run.answered(life)]
    if run.rejected:
        console.print(f"error answers, such as: {run.rejected[0]}", style="bold red", highlight=False, markup=False)
    if idle:
        console.print(f"no event was answered {' and '.join(idle)}", style="bold red", highlight=False)
    good = verdict.good and not idle and not run.rejected
    if good:
        line = f"OK: all {verdict.answered:,} answered events are there, in order ({run.seconds:.0f} s)"
        console.print(line, style="bold green", highlight=False)
    else:
        console.print("FAILED: see above", style="bold red", highlight=False)
    return good
