"""`walsvc purge`: hide the records of a key, or with some labels, or with some LSNs, or a topic's oldest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, output, runner
from walsvc.visible import counted

if TYPE_CHECKING:
    from walsvc.format.purge import Label


@options.reaching("path")
def purge(
    path: options.LogTarget,
    *,
    key: Annotated[str | None, typer.Option(metavar="KEY", help='Records whose attribute "key" is KEY.')] = None,
    where: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Records with this label.")] = None,
    lsn: Annotated[
        list[int] | None, typer.Option("--lsn", min=1, metavar="LSN", help="This record; repeatable.")
    ] = None,
    topic: Annotated[str | None, typer.Option(metavar="TOPIC", help="Only records of this topic.")] = None,
    before: Annotated[int | None, typer.Option(min=1, metavar="LSN", help="Only records below this one.")] = None,
    keep: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="All records of the topic but for the newest N.")
    ] = None,
    disk: options.DiskName = options.DiskChoice.AUTO,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Hide the records of a key, or with some labels, or with some LSNs; of a topic also all below an LSN, or all but the newest.

    Later records are visible. Nothing is removed from the files: see compact. The log must not be open elsewhere; a served log is
    purged while its clients use it.
    """
    check_usage([key is not None, bool(where), bool(lsn), keep is not None], topic, before)
    labels = labels_of(where or [f"key={key}"]) if key is not None or where else None

    async def verb() -> int:
        import walsvc

        async with walsvc.open(path, **await options.existing(path, disk, key_file)) as log:
            place = log if topic is None else log.topic(topic)
            if labels is None:
                if topic is not None and not lsn:
                    count = await log.topic(topic).purge(before=before, keep=keep)
                else:
                    count = await place.purge(lsns=lsn)
                output.emit_json({"topic": topic, "records": count}) if as_json else output.echo(
                    f"hidden: {counted(count or 0, 'record')}"
                )
                return exits.OK
            until = log.next_lsn if before is None else before
            await place.purge(labels, before=until)
        if as_json:
            output.emit_json({"labels": labels, "topic": topic, "before": until})
        else:
            output.echo(
                f"hidden below LSN {until}: " + ", ".join(f"{name}={value!r}" for name, value in labels.items())
            )
        return exits.OK

    runner.run(verb)


def check_usage(ways: list[bool], topic: str | None, before: int | None) -> None:
    """BadParameter unless it is said in one way what to hide: by key, labels, LSNs, what to keep; of a topic `before` alone is one."""
    by_label, by_lsn, kept = any(ways[:2]), ways[2], ways[3]
    if sum(ways) > 1 or (not any(ways) and (topic is None or before is None)):
        raise typer.BadParameter(
            "give one of --key KEY, --where NAME=VALUE, --lsn LSN; with --topic also --keep N, or --before LSN alone"
        )
    if kept and topic is None:
        raise typer.BadParameter("--keep goes with --topic")
    if before is not None and (by_lsn or kept) and not by_label:
        raise typer.BadParameter("--before goes with --key, --where, or --topic alone")


def labels_of(pairs: list[str]) -> dict[str, Label]:
    """Labels from NAME=VALUE; a value that is a JSON number, true, false or text is that, anything else is text."""
    import json

    labels: dict[str, Label] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE")
        try:
            read = json.loads(value)
        except ValueError:
            read = value
        labels[name] = read if isinstance(read, (str, int, float, bool)) else value
    return labels
