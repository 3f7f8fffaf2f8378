"""`walsvc truncate`: drop records from either end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, output, runner
from walsvc.visible import counted

if TYPE_CHECKING:
    from walsvc.interface import Topic


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
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="TOPIC", help="Only records of this topic; with --before.")
    ] = None,
    disk: options.DiskName = options.DiskChoice.AUTO,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Drop records from either end.

    The records are gone for good. With --topic the other topics' records stay. --before keeps the record LSN and all later ones, --after keeps it and all earlier ones.
    The log must not be open elsewhere: while another process writes it, the command ends with "locked". A served log is cut
    while its clients use it.
    """
    if (before is None) == (after is None):
        raise typer.BadParameter("give either --before LSN or --after LSN")
    if topic is not None and before is None:
        raise typer.BadParameter("--topic goes with --before; the end of the log is all topics'")
    if force and before is None:
        raise typer.BadParameter("--force goes with --before; nothing holds back --after")

    async def verb() -> int:
        import walsvc

        async with walsvc.open(path, **await options.existing(path, disk, key_file)) as log:
            if topic is not None and before is not None:
                told = await truncated(log.topic(topic), before, force=force)
                output.emit_json({"topic": topic, **told}) if as_json else output.echo(in_words(topic, told))
                return exits.OK
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
            output.echo(f"dropped {counted(was - end + first, 'record')}; kept: {kept}")
        return exits.OK

    runner.run(verb)


async def truncated(topic: Topic, before: int, *, force: bool) -> dict[str, int | None]:
    """Drop a topic's records below an LSN; what there was and is."""
    was = await topic.count()
    await topic.truncate_before(before, force=force)
    count = await topic.count()
    return {
        "first_lsn": await topic.first_lsn(),
        "last_lsn": await topic.last_lsn(),
        "records": count,
        "dropped": was - count,
    }


def in_words(topic: str, told: dict[str, int | None]) -> str:
    """The plan as text for people."""
    kept = f"LSN {told['first_lsn']} to {told['last_lsn']}" if told["records"] else "none"
    return f"dropped {counted(told['dropped'] or 0, 'record')} of topic {topic!r}; kept: {kept}"
