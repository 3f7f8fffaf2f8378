"""`walsvc verify`: reads everything and reports whatever is wrong, with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from walsvc.cli import exits, options, output, runner
from walsvc.visible import counted

if TYPE_CHECKING:
    from walsvc.log.offline.inspect import SegmentWalk
    from walsvc.log.offline.verify import Verified
    from walsvc.model import Finding

COLUMNS = ("finding", "segment", "offset", "LSN", "bytes", "what")


def verify(path: options.LogPath, as_json: options.AsJson = False, key_file: options.KeyFile = None) -> None:
    """Read everything and check it.

    Every CRC, the chain of groups, the sequence of segments, the end. Changes nothing.

    A torn tail and an unclean close are reported but are no errors: no acknowledged record is lost. Damage to acknowledged
    data ends with 3, a format that this version does not know with 6. Works beside a program that is writing the log: a group
    that it is writing is no finding.
    """

    async def verb() -> int:
        from functools import partial

        from walsvc.bench.machine import lock_holder
        from walsvc.log.offline.verify import verify as check

        keys = options.keys_or_blind(key_file)
        with progress() as show_walk:
            verdict = await check(path, show_walk, keys, partial(lock_holder, path))
        if as_json:
            output.emit_json(as_dict(verdict))
        else:
            show(verdict)
        if not verdict.errors:
            return exits.OK
        # Damage first: who restores a backup for it also gets rid of the rest.
        worst = min(verdict.errors, key=exits.code_of)
        return runner.report(worst)

    runner.run(verb, only_reads=True)


@contextmanager
def progress() -> Iterator[Callable[[SegmentWalk], None] | None]:
    """Show the progress on standard error, where that is a terminal."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    shown = output.progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    if shown is None:
        yield None
        return
    task = shown.add_task("looking for the end")
    segments, read = 0, 0

    def show_walk(walked: SegmentWalk) -> None:
        nonlocal segments, read
        segments, read = segments + 1, read + walked.bytes_read
        shown.update(task, description=f"{counted(segments, 'segment')}, {output.size(read)} read, at {walked.name}")

    with shown:
        yield show_walk


def show(verdict: Verified) -> None:
    """Print the verdict for people."""
    if verdict.findings:
        output.table(COLUMNS, [row(each) for each in verdict.findings])
    read = (
        f"{counted(verdict.segments, 'segment')}, {counted(verdict.groups, 'group')}, {counted(verdict.records, 'record')}, "
        f"{output.size(verdict.bytes_read)} read"
    )
    if verdict.errors:
        output.echo(f"DAMAGED: {counted(len(verdict.errors), 'finding')} in acknowledged data; {read}")
        return
    held = "no records"
    if verdict.next_lsn > verdict.first_lsn:
        held = f"LSN {verdict.first_lsn} to {verdict.next_lsn - 1}"
    output.echo(f"ok: {held}; {read}")
    if verdict.unopened:
        output.echo(
            f"{verdict.unopened} encrypted segments were checked from outside: what is damaged would have been found, what "
            "was forged not; --key-file does both"
        )
    if verdict.unbound:
        output.echo(
            f"in {counted(verdict.unbound, 'segment')} nothing says what stands before, since an older walsvc wrote them: one of another "
            "history of the log would not be noticed there"
        )
    if verdict.writer is not None:
        output.echo(f"process {verdict.writer} has it open for writing")


def row(finding: Finding) -> tuple[object, ...]:
    """One finding for people."""
    return (
        finding.kind + (" (!)" if finding.fatal else ""),
        None if finding.segment is None else f"{finding.segment:016x}",
        finding.offset,
        finding.lsn,
        finding.length or None,
        finding.message,
    )


def as_dict(verdict: Verified) -> dict[str, Any]:
    """The verdict for JSON."""
    import dataclasses

    return {
        "ok": not verdict.errors,
        "clean": verdict.clean,
        "first_lsn": verdict.first_lsn,
        "next_lsn": verdict.next_lsn,
        "segments": verdict.segments,
        "groups": verdict.groups,
        "records": verdict.records,
        "bytes_read": verdict.bytes_read,
        "unopened": verdict.unopened,
        "unbound": verdict.unbound,
        "writer_pid": verdict.writer,
        "findings": [dataclasses.asdict(each) for each in verdict.findings],
    }
