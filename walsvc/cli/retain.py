"""`walsvc retain`: how much of a topic is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, output, runner

if TYPE_CHECKING:
    from walsvc.format.limits import TopicLimits


@options.reaching("path")
def retain(
    path: options.LogTarget,
    *,
    topic: Annotated[str, typer.Option("--topic", metavar="TOPIC", help="The topic.")],
    records: Annotated[int | None, typer.Option(min=1, metavar="N", help="Keep the newest N records.")] = None,
    size: Annotated[
        int | None, typer.Option("--bytes", min=1, metavar="N", help="Keep N payload bytes of the newest records.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Keep the records of the last S seconds.")
    ] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Keep everything again.")] = False,
    disk: options.DiskName = options.DiskChoice.AUTO,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Say how much of a topic is kept, or show it.

    The limits that are given take the place of those before. What is over them goes at once and from then on, while a program or a
    server has the log open. The log must not be open elsewhere; of a served log the server applies them.
    """
    given = any(each is not None for each in (records, size, seconds))
    if given and lift:
        raise typer.BadParameter("--lift takes all limits away: give no others")

    async def verb() -> int:
        import walsvc

        async with walsvc.open(path, **await options.existing(path, disk, key_file)) as log:
            place = log.topic(topic)
            if given or lift:
                await place.retain(records=records, bytes=size, seconds=seconds)
            limits = await place.limits()
        if as_json:
            output.emit_json({"topic": topic, **limits._asdict()})
        else:
            output.echo(f"topic {topic!r} keeps {in_words(limits)}")
        return exits.OK

    runner.run(verb)


def in_words(limits: TopicLimits) -> str:
    """Limits for people."""
    said = [] if limits.records is None else [f"{limits.records} records"]
    said += [] if limits.bytes is None else [f"{limits.bytes} bytes"]
    said += [] if limits.seconds is None else [f"{limits.seconds:g} s"]
    return " and ".join(said) + " at most" if said else "everything"
