"""`walsvc archive`: sealed segments to object storage, and the way back."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, output, runner

if TYPE_CHECKING:
    from walsvc.engines.archive import OnProgress

archive = typer.Typer(
    help="Store sealed segments in S3-compatible storage or a directory, and restore the log as it was at any moment.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Url = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="s3://bucket/prefix, gs://..., az://... or file:///directory; credentials as for the store's own tools "
        "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, ...).",
        show_default=False,
    ),
]
LogId = Annotated[str | None, typer.Option("--log", help="Which log, by its id, where the archive holds several.")]


@archive.callback()
def _only_verbs_below() -> None:
    """Store sealed segments in S3-compatible storage or a directory, and restore the log as it was at any moment."""


@archive.command()
def push(path: options.LogPath, url: Url, as_json: options.AsJson = False, key_file: options.KeyFile = None) -> None:
    """Store every sealed segment of the log that is not stored yet.

    Where no other process writes the log, a hold named "archive" keeps from then on what is not archived. Beside a writer it
    only reads: let `walsvc serve` archive, or hold the records yourself, if retention might drop them first.
    """

    async def verb() -> int:
        import walsvc
        from walsvc.engines.archive import Archive
        from walsvc.errors import Locked

        place = Archive.at(url)
        try:
            log = await walsvc.open(path, **await options.existing(path, key_file=key_file))
        except Locked:
            output.note("another process writes the log: archiving beside it, without a hold")
            log = await walsvc.open(path, read_only=True, **options.keyed(key_file))
        async with log:
            with progress("archiving") as step:
                added = await place.push(log, step)
        stored = sum(entry.bytes for entry in added)
        if as_json:
            listed = [
                {"first_lsn": entry.first_lsn, "next_lsn": entry.next_lsn, "bytes": entry.bytes} for entry in added
            ]
            output.emit_json({"log": place.log_id, "segments": listed, "bytes": stored})
        elif added:
            held = f"LSN {added[0].first_lsn} to {added[-1].next_lsn - 1}"
            output.echo(f"{held}, {len(added)} segments, {output.size(stored)} stored: {url}")
        else:
            output.echo(f"nothing new to store: {url}")
        return exits.OK

    runner.run(verb)


@archive.command()
def ls(url: Url, log_id: LogId = None, as_json: options.AsJson = False) -> None:
    """List what is archived."""

    async def verb() -> int:
        from datetime import UTC, datetime

        from walsvc.engines.archive import Archive

        place = Archive.at(url, log_id=log_id)
        ids = [log_id] if log_id is not None else await place.logs()
        rows = []
        for each in ids:
            for entry in await Archive.at(url, log_id=each).entries():
                if as_json:
                    output.emit_json(
                        {
                            "log": each,
                            "sequence": entry.sequence,
                            "first_lsn": entry.first_lsn,
                            "next_lsn": entry.next_lsn,
                            "bytes": entry.bytes,
                            "first_ns": entry.first_ns,
                            "last_ns": entry.last_ns,
                        }
                    )
                last = datetime.fromtimestamp(entry.last_ns / 1e9, UTC).isoformat(timespec="seconds")
                rows.append((each, entry.sequence, entry.first_lsn, entry.next_lsn - 1, output.size(entry.bytes), last))
        if not as_json:
            output.table(("log", "number", "first LSN", "last LSN", "size", "last written"), rows)
        return exits.OK

    runner.run(verb, only_reads=True)


@archive.command()
def verify(url: Url, log_id: LogId = None, as_json: options.AsJson = False) -> None:
    """Fetch every object and compare it with what was stored. Ends with the code for corruption where one is wrong or missing."""

    async def verb() -> int:
        import dataclasses

        from walsvc.engines.archive import Archive
        from walsvc.engines.archive_restore import verify

        place = Archive.at(url, log_id=log_id)
        with progress("verifying") as step:
            found = await verify(place, step)
        entries = place.known
        if as_json:
            output.emit_json({"segments": len(entries), "findings": [dataclasses.asdict(each) for each in found]})
        else:
            for finding in found:
                output.echo(f"{finding.kind}: LSN {finding.lsn}, offset {finding.offset}: {finding.message}")
            output.echo(f"{len(entries)} segments, {len(found)} objects wrong or missing: {url}")
        return exits.CORRUPTION if found else exits.OK

    runner.run(verb, only_reads=True)


@archive.command()
def restore(  # noqa: PLR0917 - typer calls it by name
    url: Url,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A directory that does not exist yet.", show_default=False)
    ],
    lsn: Annotated[int | None, typer.Option("--lsn", help="End with the group that holds this LSN.", min=1)] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", help="End before the first group written later, for example 2026-01-31T12:00:00+01:00."
        ),
    ] = None,
    log_id: LogId = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a log at PATH of what is archived: all of it, or as it was at an LSN or a time.

    PATH must not exist, or be an empty directory. Whole groups are restored, the unit in which the log was written.
    """
    from datetime import datetime

    try:
        moment = None if until is None else datetime.fromisoformat(until)
    except ValueError:
        raise typer.BadParameter(
            f"{until!r} is no time as in ISO 8601, for example 2026-01-31T12:00:00+01:00"
        ) from None

    async def verb() -> int:
        from walsvc.engines.archive import Archive
        from walsvc.engines.archive_restore import restore

        with progress("restoring") as step:
            copied = await restore(Archive.at(url, log_id=log_id), path, lsn=lsn, until=moment, on_progress=step)
        output.copied(copied, path, as_json=as_json)
        return exits.OK

    runner.run(verb)


@contextlib.contextmanager
def progress(what: str) -> Iterator[OnProgress | None]:
    """A progress bar on standard error, where that is a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

    bar = output.progress(TextColumn(what), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    assert bar is not None, "standard error is a terminal"
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
