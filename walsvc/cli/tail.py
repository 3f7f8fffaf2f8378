"""`walsvc tail`: the last records, and with -f those that follow."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, runner, wanted

if TYPE_CHECKING:
    from walsvc.interface import Log
    from walsvc.log.read.filter import Wanted


@options.reaching("path")
def tail(
    path: options.LogTarget,
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many records from the end.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more and print them; Ctrl-C ends.")] = False,
    *,
    topic: wanted.Topic = None,
    types: wanted.Types = None,
    where: wanted.Where = None,
    since: wanted.Since = None,
    form: options.FormatName = options.PrintFormat.RAW,
    as_json: options.JsonFormat = False,
    key_file: options.KeyFile = None,
) -> None:
    """Print the last records; follow with -f.

    Works beside a program that is writing the log; only durable records are shown.
    """
    chosen = wanted.wanted_of(topic, types, where, since)

    form = options.PrintFormat.JSON if as_json else form

    async def verb() -> int:
        import walsvc
        from walsvc.cli.printing import print_as_they_come, print_records

        async with walsvc.open(path, read_only=True, **options.keyed(key_file)) as log:
            start = await start_of_last(log, count, chosen)
            if follow:
                await print_as_they_come(log.follow(start, **chosen), form)
            else:
                await print_records(log.read(start, **chosen), form)
        return exits.OK

    runner.run(verb, only_reads=True)


async def start_of_last(log: Log, count: int, chosen: Wanted) -> int:
    """LSN of the last-but-`count` record; of those that are wanted, if not all are."""
    if not chosen or not count:
        return max(log.first_lsn, log.next_lsn - count)
    end = log.next_lsn
    last: deque[int] = deque(maxlen=count)
    async for record in log.read_lazy(stop=end, **chosen):
        last.append(record.lsn)
    return last[0] if last else end
