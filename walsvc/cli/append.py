"""`walsvc append`: lines become records, and their LSNs are printed as they are acknowledged."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import options, runner
from walsvc.model import Mode


def append(
    path: options.LogTarget,
    *,
    file: Annotated[str | None, typer.Option("--file", "-f", help="Read this file instead of standard input.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Each line must be JSON; it is stored as given. Blank lines are skipped.")
    ] = False,
    whole: Annotated[bool, typer.Option("--whole", help="The whole input is one record.")] = False,
    mode: Annotated[Mode, typer.Option(help="What an LSN printed means: on disk, or accepted.")] = Mode.STRICT,
    batch: Annotated[int, typer.Option(min=1, help="Append this many lines at a time, all or nothing.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no LSNs.")] = False,
    disk: options.DiskName = options.Disk.AUTO,
    segment_bytes: Annotated[int | None, typer.Option(help="Size of new segments.", show_default=False)] = None,
    max_record_bytes: Annotated[int | None, typer.Option(help="Longest line taken.", show_default=False)] = None,
    key_file: options.KeyFile = None,
) -> None:
    """Append lines as records; print their LSNs.

    Each LSN is printed when its record is acknowledged. The log is created if it is not there. Ctrl-C stops reading, waits for what is under way, prints it and ends with
    130: everything acknowledged is in the log. With --mode relaxed the records are on disk when the command ends.
    """
    if whole and (json or batch > 1):
        raise typer.BadParameter("--whole goes with neither --json nor --batch")
    if options.is_url(path) and (segment_bytes is not None or disk is not options.Disk.AUTO):
        raise typer.BadParameter("--disk and --segment-bytes are the server's to set, where `walsvc serve` runs")
    wished = {"disk": disk.value, "segment_bytes": segment_bytes, "max_record_bytes": max_record_bytes}

    async def verb() -> int:
        import walsvc
        from walsvc.cli import source
        from walsvc.cli.pump import Pump
        from walsvc.config import WalConfig

        options_given = {name: value for name, value in wished.items() if value is not None}
        config = WalConfig.of(None, {**options.layout_of(path), **options_given, "keys": options.keys_of(key_file)})
        if file is not None:
            with open(file, "rb"):  # noqa: ASYNC230 - fails here, before a log is created for nothing
                pass
        if whole:
            lines = source.whole(file, config.max_record_bytes)
        else:
            lines = source.lines(file, config.max_record_bytes, must_be_json=json)
        async with walsvc.open(
            path, **(options.keyed(key_file) if options.is_url(path) else {"config": config})
        ) as log:
            return await Pump(log, mode=mode, batch=batch, quiet=quiet).run(lines)

    runner.run(verb)
