"""`walsvc cat`: the records, to standard output."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, options, runner, wanted


@options.reaching("path")
def cat(
    path: options.LogTarget,
    start: Annotated[int | None, typer.Option(min=1, help="First LSN. Default: the log's first.")] = None,
    stop: Annotated[int | None, typer.Option(min=1, help="LSN to stop before. Default: the log's end.")] = None,
    *,
    reverse: Annotated[bool, typer.Option("--reverse", help="The newest record first.")] = False,
    topic: wanted.Topic = None,
    types: wanted.Types = None,
    where: wanted.Where = None,
    since: wanted.Since = None,
    until: wanted.Until = None,
    form: options.FormatName = options.PrintFormat.RAW,
    as_json: options.JsonFormat = False,
    key_file: options.KeyFile = None,
) -> None:
    """Print the records.

    One line each, up to what is durable. Works beside a program that is writing the log.
    """
    chosen = wanted.wanted_of(topic, types, where, since, until)

    form = options.PrintFormat.JSON if as_json else form

    async def verb() -> int:
        import walsvc
        from walsvc.cli.printing import print_records

        async with walsvc.open(path, read_only=True, **options.keyed(key_file)) as log:
            await print_records(log.read(start, stop, reverse=reverse, **chosen), form)
        return exits.OK

    runner.run(verb, only_reads=True)
