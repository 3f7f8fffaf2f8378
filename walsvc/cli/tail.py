"""`walsvc tail`: the last records, and with -f those that follow."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, options, runner


def tail(
    path: options.LogTarget,
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many records from the end.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more and print them; Ctrl-C ends.")] = False,
    form: options.FormatName = options.Format.RAW,
) -> None:
    """Print the last records; follow with -f.

    Works beside a program that is writing the log; only durable records are shown.
    """

    async def verb() -> int:
        import walsvc
        from walsvc.cli.printing import print_as_they_come, print_records

        async with walsvc.open(path, read_only=True) as log:
            start = max(log.first_lsn, log.next_lsn - count)
            if follow:
                await print_as_they_come(log.follow(start), form)
            else:
                await print_records(log.read(start), form)
        return exits.OK

    runner.run(verb, only_reads=True)
