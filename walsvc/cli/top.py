"""`walsvc top`: a log at work, live on a terminal: rates, group sizes, syncs, consumers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from walsvc.cli import exits, options, output, runner


@options.reaching("path")
def top(
    path: options.LogTarget,
    interval: Annotated[float, typer.Option(min=0.1, max=3600.0, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print what one interval shows, and end.")] = False,
    *,
    key_file: options.KeyFile = None,
) -> None:
    """Show a log at work, until Ctrl-C.

    Records and bytes a second, records in one sync, how long syncs take, how much is kept, and every consumer with its lag. Of a served
    log, by its URL, all is known. Beside a program that has the log in this directory only what the files tell: no syncs, no bytes a
    second. Into a pipe it prints one look, as with --once.
    """

    async def verb() -> int:
        import asyncio
        from collections import deque

        import walsvc
        from walsvc.cli.viewing import KEPT, lines_of, look, picture

        async with walsvc.open(path, read_only=True, **options.keyed(key_file)) as log:
            looks = deque([await look(log)], maxlen=KEPT + 1)
            if once or not sys.stdout.isatty():
                await asyncio.sleep(interval)
                looks.append(await look(log))
                for line in lines_of(path, looks):
                    output.echo(line)
                return exits.OK
            from rich.live import Live

            with Live(picture(path, looks), screen=True, auto_refresh=False) as live:
                while True:
                    await asyncio.sleep(interval)
                    looks.append(await look(log))
                    live.update(picture(path, looks), refresh=True)

    runner.run(verb, only_reads=True)
