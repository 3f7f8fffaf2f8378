"""`walsvc bench`: what this machine, file system and log do together."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, output, runner
from walsvc.model import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

    from walsvc.bench.measure import Measuring, Outcome, Workload

bench: typer.Typer = typer.Typer(
    help="Measure how fast this machine acknowledges records.", no_args_is_help=True, rich_markup_mode=None
)

IN_MEMORY = "the file system ({}) lives in memory: nothing here is durable, and the figures say nothing about a disk"


@bench.callback()
def _only_verbs_below() -> None:
    """Measure how fast this machine acknowledges records."""


@bench.command()
@options.reaching("url")
def run(
    path: Annotated[
        str,
        typer.Argument(metavar="[PATH]", help="A directory on the disk to measure.", callback=options.directory_only),
    ] = ".",
    *,
    tasks: Annotated[int, typer.Option("--tasks", "-t", min=1, help="Tasks that append at once.")] = 64,
    size: Annotated[int, typer.Option("--size", "-s", min=0, help="Payload bytes.")] = 128,
    mode: Annotated[Mode, typer.Option(help="When an append is answered.")] = Mode.STRICT,
    seconds: Annotated[float, typer.Option(min=0.001, help="How long.")] = 5.0,
    records: Annotated[int | None, typer.Option(min=1, help="Stop after so many instead.", show_default=False)] = None,
    batch: Annotated[int, typer.Option(min=1, help="Records in one append_batch; 1: append.")] = 1,
    loop: Annotated[options.Loop, typer.Option(help="Event loop; auto: uvloop where installed.")] = options.Loop.AUTO,
    disk: options.DiskName = options.DiskChoice.AUTO,
    layout: Annotated[
        options.LayoutChoice, typer.Option(help="pad: a block for each group; pack: groups share blocks.")
    ] = options.LayoutChoice.PAD,
    double_write: Annotated[options.DoubleWriteChoice, typer.Option(help="Sync each group to another file first.")] = (
        options.DoubleWriteChoice.OFF
    ),
    keep: Annotated[bool, typer.Option(help="Leave the log there and say where.")] = False,
    url: Annotated[
        str | None,
        typer.Option(help="Append to the served log there, for good.", show_default=False, callback=options.url_only),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Append from many tasks; print throughput, latencies, syncs.

    Writes a log of its own in a new directory below PATH and removes it afterwards; with --url it is a client of a running
    server, and its records stay in that log. Figures differ from machine to machine
    and from run to run: compare only what one machine measured in one go.
    """

    async def verb() -> int:
        import shutil

        from walsvc.bench.measure import Workload, measure
        from walsvc.cli.fresh import fresh_directory
        from walsvc.config import WalConfig

        workload = Workload(tasks=tasks, payload_bytes=size, mode=mode, batch=batch, seconds=seconds, records=records)
        wished: dict[str, object] = {"disk": disk.value, "layout": layout.value, "double_write": double_write.value}
        config = WalConfig.of(None, wished)
        place = url or fresh_directory("walsvc-bench-", path, otherwise="give another PATH")
        shown, tick = _display(workload)
        try:
            if shown is not None:
                shown.start()
            outcome = await measure(place, workload, config=config, progress=tick)
        finally:
            if shown is not None:
                shown.stop()
            if not keep and url is None:
                shutil.rmtree(place, ignore_errors=True)
        if as_json:
            output.emit_json(as_dict(outcome))
        else:
            show(outcome)
        if keep and url is None:
            output.complain(f"kept: {place}")
        return exits.OK

    runner.run(verb, loop=loop.value)


def _per_record(outcome: Outcome, length: int) -> str:
    """How many bytes that is for each record."""
    return f", {length / outcome.records:,.1f} B for each record" if outcome.records else ""


def _display(workload: Workload) -> tuple[Progress | None, Callable[[Measuring], None] | None]:
    """A progress bar on standard error and the function that moves it; nothing when that is no terminal."""
    if not sys.stderr.isatty():
        return None, None
    import time

    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    shown = output.progress(BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    if shown is None:
        return None, None
    task = shown.add_task("opening", total=1.0)

    def tick(run: Measuring) -> None:
        elapsed = (time.perf_counter_ns() - run.began) / 1e9
        share = elapsed / workload.seconds if workload.records is None else run.done / workload.records
        shown.update(task, completed=min(share, 1.0), description=f"{run.done / max(elapsed, 1e-9):,.0f} records/s")

    return shown, tick


def as_dict(outcome: Outcome) -> dict[str, object]:
    """The figures and the machine that they were measured on, for JSON."""
    import dataclasses

    from walsvc.bench import machine
    from walsvc.cli.version import number

    return {
        **dataclasses.asdict(outcome),
        "workload": {**dataclasses.asdict(outcome.workload), "mode": outcome.workload.mode.value},
        "records_per_s": outcome.records_per_s,
        "payload_bytes_per_s": outcome.payload_bytes_per_s,
        "durable": not outcome.memory_backed and outcome.workload.mode is Mode.STRICT,
        "walsvc": number(),
        "machine": machine.describe(),
    }


def show(outcome: Outcome) -> None:
    """Print the outcome for people."""
    work = outcome.workload
    what = f"{work.tasks} tasks x {work.payload_bytes} B, {work.mode.value}" + (
        f", batches of {work.batch}" if work.batch > 1 else ""
    )
    latency, lag = outcome.latency_us, outcome.loop_lag_us
    cache = "unknown" if outcome.page_cache_bytes is None else output.size(outcome.page_cache_bytes)
    direct = "O_DIRECT" if outcome.direct else "buffered"
    rows: list[tuple[str, str]] = [
        ("workload", what),
        ("throughput", f"{outcome.records_per_s:,.0f} records/s, {output.size(outcome.payload_bytes_per_s)}/s"),
        ("records", f"{outcome.records:,} in {outcome.seconds:.2f} s"),
        (
            "latency of an append" if work.batch == 1 else "latency of a batch",
            f"p50 {latency.p50:,.1f} us, p99 {latency.p99:,.1f} us, p99.9 {latency.p999:,.1f} us, "
            f"max {latency.max:,.1f} us",
        ),
        ("syncs", f"{outcome.syncs:,} ({outcome.syncs / outcome.seconds:,.0f}/s)"),
        ("records per sync", f"mean {outcome.group_records_mean:,.1f}, max {outcome.group_records_max:,}"),
        (
            "written",
            f"{output.size(outcome.written_bytes)}, padding included" + _per_record(outcome, outcome.written_bytes),
        ),
        ("log", output.size(outcome.log_bytes) + _per_record(outcome, outcome.log_bytes)),
        ("layout", f"{outcome.layout}, double-write {outcome.double_write}"),
        ("page cache", f"{cache} more of the log's files"),
        ("loop lag", f"p50 {lag.p50:,.0f} us, p99.9 {lag.p999:,.0f} us, max {lag.max:,.0f} us (1 ms timer)"),
        ("cpu", f"{outcome.cpu_seconds / outcome.seconds:.2f} cores"),
        ("loop", outcome.loop),
        ("disk", f"{outcome.disk}: {outcome.disk_reason}"),
        ("writes", f"{direct}, blocks of {outcome.block_bytes} B, {outcome.sync_method}"),
        ("file system", outcome.file_system),
    ]
    output.table(("measured", "value"), rows)
    if outcome.memory_backed:
        output.echo("NOT DURABLE: " + IN_MEMORY.format(outcome.file_system) + ".")
