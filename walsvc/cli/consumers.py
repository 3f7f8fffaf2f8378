"""`walsvc consumers`: positions and lag of consumers; moving and deleting them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, output, runner
from walsvc.visible import counted

if TYPE_CHECKING:
    from walsvc.interface import Appending, Log

consumers: typer.Typer = typer.Typer(
    help="Durable consumers and holds.\n\n"
    "List, move and delete consumers, show what keeps records from being dropped, and release holds.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
OF_SHARED = ("shared", "outstanding", "waiting", "redeliveries", "dead_letters", "oldest_seconds")
Name = Annotated[str, typer.Argument(metavar="CONSUMER", help="The consumer's name.", show_default=False)]
TopicName = Annotated[str | None, typer.Option("--topic", help="Its topic. Default: it reads the whole log.")]


@consumers.callback()
def _only_verbs_below() -> None:
    """Durable consumers and holds.

    List, move and delete consumers, show what keeps records from being dropped, and release holds.
    """


@consumers.command("list", hidden=True)
@consumers.command()
@options.reaching("path")
def ls(path: options.LogTarget, as_json: options.AsJson = False, key_file: options.KeyFile = None) -> None:
    """List the consumers with their positions and lag, and the holders.

    Of shared consumers also the records that are out with workers, the age in seconds of the oldest record that is not done, and how
    many went out again and to the dead-letter topic since the consumer was opened. Only the process that has the log knows these:
    ask its server, by its URL. Works beside a program that is writing the log; shows what is durable.
    """

    async def verb() -> int:
        import walsvc

        async with walsvc.open(path, read_only=True, **options.keyed(key_file)) as log:
            found, holds, end = await log.consumers(), log.holds(), log.next_lsn
        if as_json:
            listed = [
                {"name": c.name, "topic": c.topic, "position": c.position, "lag": c.lag}
                | ({name: getattr(c, name) for name in OF_SHARED} if c.shared else {})
                for c in found
            ]
            output.emit_json({"consumers": listed, "holds": holds, "next_lsn": end})
            return exits.OK
        rows: list[tuple[object, ...]] = [
            ("shared" if c.shared else "consumer", c.name, c.topic, c.position, "overtaken" if c.lag is None else c.lag)
            for c in found
        ]
        rows += [("hold", name, None, lsn, None) for name, lsn in sorted(holds.items())]
        columns: tuple[str, ...] = ("kind", "name", "topic", "position", "lag")
        if any(c.shared for c in found):
            columns += ("out", "oldest s", "again", "dead")
            at_work = [
                (c.outstanding, c.oldest_seconds, c.redeliveries, c.dead_letters) if c.shared else (None,) * 4
                for c in found
            ]
            rows = [(*row, *more) for row, more in zip_longest(rows, at_work, fillvalue=(None,) * 4)]
        output.table(columns, rows)
        return exits.OK

    runner.run(verb, only_reads=True)


@consumers.command()
@options.reaching("path")
def seek(
    path: options.LogTarget,
    name: Name,
    to: Annotated[str, typer.Argument(metavar="TO", help='"first", "next" or an LSN.', show_default=False)],
    topic: TopicName = None,
    *,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Set a consumer's position.

    Needs the log for itself: while another process writes it, this ends with "locked". On a served log the consumer must
    not be in use.
    """
    if to not in ("first", "next") and not to.isdecimal():
        raise typer.BadParameter(f'{to!r} is neither "first" nor "next" nor an LSN')

    async def move(log: Log) -> None:
        await of(log, topic).move_consumer(name, "first" if to == "first" else "next" if to == "next" else int(to))

    change(path, name, topic, move, as_json=as_json, key_file=key_file)


@consumers.command()
@options.reaching("path")
def rm(
    path: options.LogTarget,
    name: Name,
    topic: TopicName = None,
    *,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Delete a consumer: it holds nothing back any more.

    Needs the log for itself: while another process writes it, this ends with "locked". On a served log the consumer must
    not be in use.
    """

    async def delete(log: Log) -> None:
        await of(log, topic).delete_consumer(name)

    change(path, name, topic, delete, as_json=as_json, key_file=key_file)


@consumers.command()
@options.reaching("path")
def redrive(
    path: options.LogTarget,
    name: Name,
    topic: Annotated[str, typer.Option("--topic", help="Its topic.", show_default=False)],
    *,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Send the dead letters of a shared consumer back to its topic.

    Each is sent back once, as it was, and is delivered from the first attempt on. A log in a directory is needed for itself: while
    another process writes it, this ends with "locked". A served log, by its URL, stays in use.
    """

    async def verb() -> int:
        import walsvc

        async with walsvc.open(path, **await options.existing(path, key_file=key_file)) as log:
            sent = await log.topic(topic).redrive(name)
        if as_json:
            output.emit_json({"name": name, "topic": topic, "redriven": sent})
        else:
            output.echo(f"{counted(sent, 'dead letter')} of consumer {name} went back to topic {topic}")
        return exits.OK

    runner.run(verb)


@consumers.command()
@options.reaching("path")
def release(
    path: options.LogTarget,
    holder: Annotated[str, typer.Argument(metavar="HOLDER", help="As `ls` lists it.", show_default=False)],
    *,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Give up a hold, so that its records can be dropped.

    Whoever set it may rely on it: an archive or a replica sets it again, and misses what was dropped meanwhile. Needs the log
    for itself: while another process writes it, this ends with "locked".
    """

    async def verb() -> int:
        import walsvc
        from walsvc.errors import BadOption

        async with walsvc.open(path, **await options.existing(path, key_file=key_file)) as log:
            held = log.holds().get(holder)
            if held is None:
                raise BadOption(f"nobody called {holder!r} holds anything", path=path, hint="walsvc consumers ls PATH")
            await log.release(holder)
        if as_json:
            output.emit_json({"name": holder, "released": held})
        else:
            output.echo(f"{holder} holds nothing any more; it held the records from LSN {held} on")
        return exits.OK

    runner.run(verb)


def of(log: Log, topic: str | None) -> Appending:
    """The log or one of its topics: both have the same methods for consumers."""
    return log if topic is None else log.topic(topic)


def change(
    path: str,
    name: str,
    topic: str | None,
    act: Callable[[Log], Awaitable[None]],
    *,
    as_json: bool,
    key_file: str | None,
) -> None:
    """Open the log for writing, act, and say where the consumer stands now."""

    async def verb() -> int:
        import walsvc

        async with walsvc.open(path, **await options.existing(path, key_file=key_file)) as log:
            await act(log)
            left = {(each.topic, each.name): each for each in await log.consumers()}
        status = left.get((topic, name))
        if as_json:
            position = None if status is None else status.position
            output.emit_json({"name": name, "topic": topic, "position": position})
        elif status is None:
            output.echo(f"consumer {name} deleted")
        else:
            output.echo(f"consumer {name} goes on at LSN {status.position}, lag {status.lag}")
        return exits.OK

    runner.run(verb)
