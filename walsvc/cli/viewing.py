"""The screen of `walsvc top`: two looks at a log as facts, as lines, as a screen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from walsvc.cli import output
from walsvc.visible import counted, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from walsvc.interface import Log
    from walsvc.model import Stats
    from walsvc.topics.names import ConsumerStatus

KEPT = 60  # looks that the line of rates shows
CONSUMERS_SHOWN = 50
BLOCKS = " ▁▂▃▄▅▆▇█"
UNKNOWN = "–"


class Look(NamedTuple):
    """A log at one moment.

    Attributes:
        at: seconds, on a clock that never goes back.
        stats: of the log.
        size: bytes of its segments.
        consumers: those with the longest lag first.
    """

    at: float
    stats: Stats
    size: int
    consumers: Sequence[ConsumerStatus]


async def look(log: Log) -> Look:
    """Look once."""
    await log.refresh()
    consumers = sorted(await log.consumers(), key=lambda each: -(each.lag or 0))
    return Look(time.monotonic(), log.stats(), log.retention().bytes, consumers)


def rates(looks: Sequence[Look]) -> list[float]:
    """Records a second, between each two looks."""
    return [
        max(now.stats.next_lsn - before.stats.next_lsn, 0) / max(now.at - before.at, 1e-9)
        for before, now in pairwise(looks)
    ]


def line_of(values: Sequence[float]) -> str:
    """Values as a line of blocks, the highest as the full one."""
    most = max(values, default=0.0) or 1.0
    return "".join(BLOCKS[round(value / most * (len(BLOCKS) - 1))] for value in values)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value below which a share of what was counted in buckets lies, taking each bucket as evenly filled; None: nothing was."""
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    for place, reached in enumerate(accumulate(counts)):
        if reached >= wanted:
            low = bounds[place - 1] if place else 0.0
            high = bounds[min(place, len(bounds) - 1)]
            return low + (high - low) * (1 - (reached - wanted) / counts[place])
    return None


def facts(looks: Sequence[Look]) -> list[tuple[str, str]]:
    """The facts of the last two looks, by name."""
    from walsvc.model import SYNC_US_BOUNDS

    before, now = looks[-2] if len(looks) > 1 else looks[-1], looks[-1]
    seconds = max(now.at - before.at, 1e-9)
    stats, then = now.stats, before.stats
    speeds = rates(looks)
    rate = f"{speeds[-1]:,.0f}/s" if speeds else UNKNOWN
    found = [("records", f"{rate}, top {max(speeds, default=0.0):,.0f}/s")]
    if stats.sync_us_counts:
        counts = [now - then for now, then in zip(stats.sync_us_counts, then.sync_us_counts, strict=True)]
        groups = sum(counts)
        written = (stats.payload_bytes - then.payload_bytes) / seconds
        shared = (stats.group_records_total - then.group_records_total) / groups if groups else 0.0
        times = [
            (name, quantile(SYNC_US_BOUNDS, counts, share))
            for name, share in (("50", 0.5), ("99", 0.99), ("99.9", 0.999))
        ]
        found += [
            ("payload", f"{output.size(written)}/s"),
            ("syncs", f"{groups / seconds:,.0f}/s, {shared:.1f} records in each"),
            ("sync time", ", ".join(f"{name} % {UNKNOWN if us is None else duration(us)}" for name, us in times)),
            (
                "waiting",
                f"{output.size(stats.pending_bytes)} not durable yet, {counted(stats.waiting, 'call')} in the queue",
            ),
            ("disk", f"{stats.disk}, {stats.sync_method}" if stats.sync_method else stats.disk),
        ]
    else:
        found.append(("syncs", "known to the process that writes the log: ask its server by its URL"))
    kept = f"LSN {stats.first_lsn:,} to {stats.next_lsn - 1:,}" if stats.next_lsn > stats.first_lsn else "no records"
    found.append(("kept", f"{kept}, {counted(stats.segments, 'segment')}, {output.size(now.size)}"))
    if stats.replica_state is not None:
        found.append(("replica", f"{stats.replica_state}, {counted(stats.replica_records, 'record')} behind"))
    if stats.failed:
        found.append(("FAILED", stats.failed))
    return found


def duration(us: float) -> str:
    """Microseconds for people."""
    for unit, length in (("s", 1e6), ("ms", 1e3)):
        if us >= length:
            return f"{us / length:.3g} {unit}"
    return f"{us:.0f} us"


COLUMNS = ("consumer", "topic", "kind", "position", "lag", "out", "oldest s", "again", "dead")


def rows_of(consumers: Sequence[ConsumerStatus]) -> list[tuple[Any, ...]]:
    """Consumers as rows of COLUMNS."""
    rows: list[tuple[Any, ...]] = []
    for each in consumers[:CONSUMERS_SHOWN]:
        lag = "overtaken" if each.lag is None else each.lag
        work = (
            (each.outstanding, each.oldest_seconds, each.redeliveries, each.dead_letters)
            if each.shared
            else (None,) * 4
        )
        rows.append((each.name, each.topic, "shared" if each.shared else "consumer", each.position, lag, *work))
    return rows


def cell_text(cell: Any) -> str:
    """A cell of such a row, for people."""
    if cell is None:
        return UNKNOWN
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def lines_of(path: str, looks: Sequence[Look]) -> list[str]:
    """Plain lines, for a pipe."""
    lines = [path, *(f"{name:10} {text}" for name, text in facts(looks))]
    rows = [tuple(map(cell_text, row)) for row in rows_of(looks[-1].consumers)]
    if rows:
        widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
        lines += [
            "",
            *(
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                for row in (COLUMNS, *rows)
            ),
        ]
    return lines


def picture(path: str, looks: Sequence[Look]) -> RenderableType:
    """The screen."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, text in facts(looks):
        style = "bold red" if name == "FAILED" else ""
        grid.add_row(Text(name, style=style or "dim"), Text(visible(text), style=style))
    parts: list[RenderableType] = [
        Text(visible(path), style="bold"),
        Text(line_of(rates(looks)).rjust(KEPT), style="blue"),
        grid,
    ]
    if rows := rows_of(looks[-1].consumers):
        table = Table(expand=False)
        told = [place for place, cells in enumerate(zip(*rows, strict=True)) if any(cell is not None for cell in cells)]
        for place in told:  # a number is shown whole, a name may take several lines
            words = COLUMNS[place] in ("consumer", "topic", "kind")
            table.add_column(COLUMNS[place], justify="left" if words else "right", overflow="fold", no_wrap=not words)
        for row in rows:
            table.add_row(*(Text(visible(cell_text(row[place]))) for place in told))
        parts += ["", table]
    return Group(*parts)
