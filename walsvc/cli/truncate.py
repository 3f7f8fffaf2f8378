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
        bool,
        typer.Option("--force", help="Also drop records that a hold keeps; `walsvc consumers ls` lists the holds."),
    ] = False,
    *,
    disk: options.DiskName = options.Disk.AUTO,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Drop records from either end.

    The records are gone for good. --before keeps the record LSN and all later ones, --after keeps it and all earlier ones.
    The log must not be open elsewhere: while another process writes it, the command ends with "locked". A served log is cut
    while its clients use it.
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
