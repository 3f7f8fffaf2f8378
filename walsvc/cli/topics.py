"""`walsvc topics`: what topics a log has; deleting one."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, options, output, runner


@options.reaching("path")
def topics(
    path: options.LogTarget,
    delete: Annotated[str | None, typer.Option("--delete", metavar="TOPIC", help="Delete this topic.")] = None,
    *,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """List the topics with their counts and ranges, or delete one.

    Listing works beside a program that is writing the log, and shows what is durable. --delete hides the topic's records, and
    frees its name and its consumers, none of which may be open. It needs the log for itself: while another process writes it, the
    command ends with "locked". `walsvc compact` gives the room back.
    """

    async def removal() -> int:
        import walsvc

        assert delete is not None, "asked for before"
        async with walsvc.open(path, **await options.existing(path, key_file=key_file)) as log:
            await log.delete_topic(delete)
        if as_json:
            output.emit_json({"topic": delete, "deleted": True})
        else:
            output.echo(f"topic {delete} deleted")
        return exits.OK

    async def verb() -> int:
        import walsvc

        rows: list[list[object]] = []
        limits: list[dict[str, float]] = []
        async with walsvc.open(path, read_only=True, **options.keyed(key_file)) as log:
            await log.refresh()
            for name in log.topics():
                topic = log.topic(name)
                rows.append([name, await topic.count(), await topic.first_lsn(), await topic.last_lsn()])
                limits.append({kind: value for kind, value in (await topic.limits())._asdict().items() if value})
        if as_json:
            keys = ("topic", "records", "first_lsn", "last_lsn")
            found = [dict(zip(keys, row, strict=True)) for row in rows]
            output.emit_json(
                {"topics": [{**row, "limits": of} if of else row for row, of in zip(found, limits, strict=True)]}
            )
        elif any(limits):
            kept = [", ".join(f"{value} {kind}" for kind, value in of.items()) for of in limits]
            rows = [[*row, of] for row, of in zip(rows, kept, strict=True)]
            output.table(("topic", "records", "first LSN", "last LSN", "kept at most"), rows)
        else:
            output.table(("topic", "records", "first LSN", "last LSN"), rows)
        return exits.OK

    if delete is None:
        runner.run(verb, only_reads=True)
    else:
        runner.run(removal)
