"""`walsvc topics`: what topics a log has."""

from __future__ import annotations

from walsvc.cli import exits, options, output, runner


@options.reaching("path")
def topics(path: options.LogTarget, as_json: options.AsJson = False, key_file: options.KeyFile = None) -> None:
    """List the topics with their counts and ranges.

    Works beside a program that is writing the log; shows what is durable.
    """

    async def verb() -> int:
        import walsvc

        rows = []
        async with walsvc.open(path, read_only=True, **options.keyed(key_file)) as log:
            await log.refresh()
            for name in log.topics():
                topic = log.topic(name)
                rows.append((name, await topic.count(), await topic.first_lsn(), await topic.last_lsn()))
        if as_json:
            keys = ("topic", "records", "first_lsn", "last_lsn")
            output.emit_json({"topics": [dict(zip(keys, row, strict=True)) for row in rows]})
        else:
            output.table(("topic", "records", "first LSN", "last LSN"), rows)
        return exits.OK

    runner.run(verb, only_reads=True)
