"""`walsvc purge`: hide the records of a key, or with some labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, output, runner

if TYPE_CHECKING:
    from walsvc.format.purge import Label


@options.reaching("path")
def purge(
    path: options.LogTarget,
    *,
    key: Annotated[str | None, typer.Option(metavar="KEY", help='Records whose attribute "key" is KEY.')] = None,
    where: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Records with this label.")] = None,
    topic: Annotated[str | None, typer.Option(metavar="TOPIC", help="Only records of this topic.")] = None,
    before: Annotated[int | None, typer.Option(min=1, metavar="LSN", help="Only records below this one.")] = None,
    disk: options.DiskName = options.Disk.AUTO,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Hide the records of a key, or with some labels.

    Later records are visible. Nothing is removed from the files: see compact. The log must not be open elsewhere; a served log is
    purged while its clients use it.
    """
    if (key is None) == (not where):
        raise typer.BadParameter("give either --key KEY or --where NAME=VALUE")
    labels = labels_of(where or [f"key={key}"])

    async def verb() -> int:
        import walsvc

        async with walsvc.open(path, **await options.existing(path, disk, key_file)) as log:
            until = log.next_lsn if before is None else before
            await (log if topic is None else log.topic(topic)).purge(labels, before=until)
        if as_json:
            output.emit_json({"labels": labels, "topic": topic, "before": until})
        else:
            output.echo(
                f"hidden below LSN {until}: " + ", ".join(f"{name}={value!r}" for name, value in labels.items())
            )
        return exits.OK

    runner.run(verb)


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
