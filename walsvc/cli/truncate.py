"""`walsvc truncate`: drop records from either end."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, options, output, runner


@options.reaching("path")
def truncate(
    path: options.LogTarget,
    before: Annotated[int | None, typer.Option(min=1, metavar="LSN", help="Drop the records before this one.")] = None,
    after: Annotated[int | None, typer.Option(min=0, metavar="LSN", help="Drop the records after this one.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also drop what somebody holds (walsvc consumers ls).")
    ] = False,
    *,
    disk: options.DiskName = options.Disk.AUTO,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Drop records from either end.

    For good: --before keeps LSN and what follows, --after keeps LSN and what precedes.
    Needs the log for itself: while another process writes it, this ends with "locked". A served log is cut under its users.
    """
    if (before is None) == (after is None):
        raise typer.BadParameter("give either --before LSN or --after LSN")
    if force and before is None:
        raise typer.BadParameter("--force goes with --before; nothing holds back --after")

    async def verb() -> int:
        import walsvc

        async with walsvc.open(path, **await options.existing(path, disk, key_file)) as log:
            was = log.next_lsn - log.first_lsn
            if before is not None:
                await log.truncate_before(before, force=force)
            elif after is not None:
                await log.truncate_after(after)
            first, end = log.first_lsn, log.next_lsn
        if as_json:
            output.emit_json(
                {"first_lsn": first, "next_lsn": end, "records": end - first, "dropped": was - end + first}
            )
        else:
            kept = f"LSN {first} to {end - 1}" if end > first else f"none, the next LSN is {end}"
            output.echo(f"dropped {was - end + first} records; kept: {kept}")
        return exits.OK

    runner.run(verb)
