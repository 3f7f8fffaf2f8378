"""`walsvc append`: lines become records, and their LSNs are printed as they are acknowledged."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import options, runner
from walsvc.cli.purge import labels_of
from walsvc.model import Mode


@options.reaching("path")
def append(
    path: options.LogTarget,
    *,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="Read this file instead of standard input (-).")
    ] = None,
    topic: Annotated[str | None, typer.Option(metavar="TOPIC", help="Append to this topic.")] = None,
    type_: Annotated[int, typer.Option("--type", metavar="TYPE", min=0, max=0xFFFF, help="Type of the records.")] = 0,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A label of every record; may be given repeatedly.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Each line must be JSON; it is stored as given. Blank lines are skipped.")
    ] = False,
    whole: Annotated[bool, typer.Option("--whole", help="The whole input is one record.")] = False,
    mode: Annotated[
        Mode, typer.Option(help="Print an LSN once its record is on disk (strict), or accepted (relaxed).")
    ] = Mode.STRICT,
    expected: Annotated[
        int | None,
        typer.Option(metavar="LSN", min=0, help="Only if the topic, or the log, ends with this LSN; with --whole."),
    ] = None,
    dedupe: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Only if no append with this key was before; with --whole."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Append this many lines at a time, all or nothing.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no LSNs.")] = False,
    disk: options.DiskName = options.DiskChoice.AUTO,
    segment_bytes: Annotated[
        int | None, typer.Option(help="Size of new segments, in bytes.", show_default=False)
    ] = None,
    max_record_bytes: Annotated[
        int | None, typer.Option(help="Longest line that is accepted, in bytes.", show_default=False)
    ] = None,
    key_file: options.KeyFile = None,
) -> None:
    """Append lines as records; print their LSNs.

    Each LSN is printed when its record is acknowledged. The log is created if it does not exist. Ctrl-C stops reading, waits for
    the appends under way, prints their LSNs and ends with 130: every acknowledged record is in the log. With --mode relaxed the
    records are on disk when the command ends.
    """
    if whole and (json or batch > 1):
        raise typer.BadParameter("--whole goes with neither --json nor --batch")
    if batch > 1 and (type_ or label):
        raise typer.BadParameter("the records of a batch have neither --type nor --label; leave --batch out")
    if expected is not None and not whole:
        raise typer.BadParameter("--expected is for one record: it goes with --whole")
    if dedupe is not None and not whole:
        raise typer.BadParameter("--dedupe is for one record: it goes with --whole")
    attributes = labels_of(label or []) or None
    source_file = None if file == "-" else file
    if options.is_url(path) and (segment_bytes is not None or disk is not options.DiskChoice.AUTO):
        raise typer.BadParameter("--disk and --segment-bytes are the server's to set, where `walsvc serve` runs")
    wished = {"disk": disk.value, "segment_bytes": segment_bytes, "max_record_bytes": max_record_bytes}

    async def verb() -> int:
        import walsvc
        from walsvc.cli import source
        from walsvc.cli.pump import Pump
        from walsvc.config import WalConfig

        options_given = {name: value for name, value in wished.items() if value is not None}
        config = WalConfig.of(None, {**options.layout_of(path), **options_given, "keys": options.keys_of(key_file)})
        if source_file is not None:
            with options.naming("--file", "check the path; - is standard input"), open(source_file, "rb"):  # noqa: ASYNC230
                pass  # fails here, before a log is created for nothing
        if whole:
            lines = source.whole(source_file, config.max_record_bytes)
        else:
            lines = source.lines(source_file, config.max_record_bytes, must_be_json=json)
        async with walsvc.open(
            path, **(options.keyed(key_file) if options.is_url(path) else {"config": config})
        ) as log:
            into = log if topic is None else log.topic(topic)
            pump = Pump(
                into,
                mode=mode,
                batch=batch,
                quiet=quiet,
                type=type_,
                attributes=attributes,
                expected=expected,
                dedupe=dedupe,
            )
            return await pump.run(lines)

    runner.run(verb)
