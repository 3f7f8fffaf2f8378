"""`walsvc compact`: give back the space of what was purged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from walsvc.cli import exits, options, output, runner
from walsvc.visible import counted


@options.reaching("path")
def compact(
    path: options.LogTarget,
    disk: options.DiskName = options.DiskChoice.AUTO,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Rewrite the sealed segments without what was purged.

    Visible records stay as they are, with their LSNs. Killed at any moment, nothing is lost; run it again to go on. Needs
    the log for itself, and room for one more segment. A served log is compacted by its server.
    """

    async def verb() -> int:
        import walsvc

        async with walsvc.open(path, **await options.existing(path, disk, key_file)) as log:
            before = log.retention().bytes
            with progress() as show:
                freed = await log.compact(None if options.is_url(path) else show)
            after = log.retention()
        if as_json:
            output.emit_json({"freed_bytes": freed, "bytes": before - freed, "segments": after.segments})
        else:
            output.echo(
                f"freed {output.size(freed)}; {counted(after.segments, 'segment')}, {output.size(before - freed)}"
            )
        return exits.OK

    runner.run(verb)


@contextmanager
def progress() -> Iterator[Callable[[int, int, int], None] | None]:
    """Show the progress on standard error, where that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    shown = output.progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if shown is None:
        yield None
        return
    task = shown.add_task("segments")

    def show(done: int, total: int, freed: int) -> None:
        shown.update(task, completed=done, total=total, description=f"{output.size(freed)} freed; segments")

    with shown:
        yield show
