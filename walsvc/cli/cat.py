"""`walsvc cat`: the records, to standard output."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, options, runner


def cat(
    path: options.LogTarget,
    start: Annotated[int | None, typer.Option(min=1, help="First LSN. Default: the log's first.")] = None,
    stop: Annotated[int | None, typer.Option(min=1, help="LSN to stop before. Default: the log's end.")] = None,
    topic: Annotated[str | None, typer.Option(help="Only records of this topic.")] = None,
    form: options.FormatName = options.Format.RAW,
) -> None:
    """Print the records.

    One line each, up to what is durable. Works beside a program that is writing the log.
    """

    async def verb() -> int:
        import walsvc
        from walsvc.cli.printing import print_records

        async with walsvc.open(path, read_only=True) as log:
            await print_records(log.read(start, stop, topic=topic), form)
        return exits.OK

    runner.run(verb, only_reads=True)
