"""`walsvc archive`: sealed segments to object storage, and the way back."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from walsvc.cli import exits, options, output, runner, wanted
from walsvc.visible import counted

if TYPE_CHECKING:
    from walsvc.engines.archive.push import OnProgress

archive: typer.Typer = typer.Typer(
    help="Store sealed segments, and restore the log.\n\n"
    "In S3-compatible storage or a directory; the log is restored as it was at any moment.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Url = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="s3://bucket/prefix, gs://..., az://..., file:///directory or a directory; credentials as for the store's own tools "
        "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, ...).",
        show_default=False,
    ),
]
LogId = Annotated[str | None, typer.Option("--log", help="Which log, by its id, where the archive holds several.")]


@archive.callback()
def _only_verbs_below() -> None:
    """Store sealed segments, and restore the log.

    In S3-compatible storage or a directory; the log is restored as it was at any moment.
    """


@archive.command()
def push(path: options.LogPath, url: Url, as_json: options.AsJson = False, key_file: options.KeyFile = None) -> None:
    """Store every sealed segment of the log that is not stored yet.

    Where no other process writes the log, a hold named "archive" keeps from then on what is not archived. Beside a writer, and
    where the keys of an encrypted log are not given, it only reads: let `walsvc serve` archive, or hold the records yourself,
    if retention might drop them first.
    """

    async def verb() -> int:
        from walsvc.engines.archive import Archive

        place = Archive.at(url)
        async with to_archive(path, key_file) as log:
            with progress("archiving") as step:
                added = await place.push(log, step)
        stored = sum(entry.bytes for entry in added)
        if as_json:
            listed = [
                {"first_lsn": entry.first_lsn, "next_lsn": entry.next_lsn, "bytes": entry.bytes} for entry in added
            ]
            output.emit_json({"log": place.log_id, "segments": listed, "bytes": stored, "mended": place.mended})
            return exits.OK
        if place.mended:
            output.echo(f"{place.mended} lost objects stored again: {url}")
        if added:
            held = f"LSN {added[0].first_lsn} to {added[-1].next_lsn - 1}"
            output.echo(f"{held}, {counted(len(added), 'segment')}, {output.size(stored)} stored: {url}")
        else:
            output.echo(f"nothing new to store, of segments that are sealed: {url}")
        return exits.OK

    runner.run(verb)


@archive.command()
def ls(url: Url, log_id: LogId = None, as_json: options.AsJson = False) -> None:
    """List the archived segments."""

    async def verb() -> int:
        from datetime import UTC, datetime

        from walsvc.engines.archive import Archive

        place = Archive.at(url, log_id=log_id, make=False)
        ids = [log_id] if log_id is not None else await place.logs()
        if not ids:
            raise await place.absent()
        rows, wrong = [], []
        for each in ids:
            one = Archive.at(url, log_id=each)
            manifest = await one.manifest()
            if not manifest.entries and not await one.digests():
                raise await one.absent()
            wrong += manifest.wrong
            for entry in manifest.entries:
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
        return max([exits.OK, *map(runner.report, wrong)])

    runner.run(verb, only_reads=True)


@archive.command()
def verify(url: Url, log_id: LogId = None, as_json: options.AsJson = False) -> None:
    """Fetch every object and compare it with what was stored.

    Ends with 3 where one is wrong or missing. Objects that no entry names may be harmless (an upload is under way, or was cut
    off), or the last entries are lost: where that is all, it ends with 1.
    """

    async def verb() -> int:
        import dataclasses

        from walsvc.engines.archive import Archive
        from walsvc.engines.archive.restore import verify

        place = Archive.at(url, log_id=log_id, make=False)
        with progress("verifying") as step:
            found = await verify(place, step)
        entries, wrong = place.known, sum(each.fatal for each in found)
        if as_json:
            output.emit_json({"segments": len(entries), "findings": [dataclasses.asdict(each) for each in found]})
        else:
            for finding in found:
                where = "" if finding.lsn is None else f"LSN {finding.lsn}, offset {finding.offset}: "
                output.echo(f"{finding.kind}: {where}{finding.message}")
            output.echo(f"{counted(len(entries), 'segment')}, {counted(wrong, 'object')} wrong or missing: {url}")
        if wrong:
            return exits.CORRUPTION
        return exits.OTHER if found else exits.OK

    runner.run(verb, only_reads=True)


@archive.command()
def restore(  # noqa: PLR0917 - typer calls it by name
    url: Url,
    path: options.NewDirectory,
    lsn: Annotated[int | None, typer.Option("--lsn", help="End with the group that holds this LSN.", min=1)] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="TIME",
            help="End before the first group written later, ISO 8601; UTC if it names no zone.",
        ),
    ] = None,
    log_id: LogId = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a log of what is archived.

    All of it, or as it was at an LSN or a time. PATH must not exist, or be an empty directory. Whole groups are restored,
    the unit in which the log was written.
    """
    moment = None if until is None else wanted.moment_of("--until", until)

    async def verb() -> int:
        from walsvc.engines.archive import Archive
        from walsvc.engines.archive.restore import restore

        with progress("restoring") as step:
            copied = await restore(
                Archive.at(url, log_id=log_id, make=False), path, lsn=lsn, until=moment, on_progress=step
            )
        output.copied(copied, path, as_json=as_json)
        return exits.OK

    runner.run(verb)


@contextlib.asynccontextmanager
async def to_archive(path: str, key_file: str | None) -> AsyncIterator[Any]:
    """The log, open for writing so that it takes the hold; for reading where another process writes it, and from outside
    where its keys were not given."""
    import walsvc
    from walsvc.engines.archive.sealed import from_outside
    from walsvc.errors import Locked, MissingKey

    try:
        log = await walsvc.open(path, **await options.existing(path, key_file=key_file))
    except Locked:
        output.note("another process writes the log: archiving beside it, without a hold")
        log = await walsvc.open(path, read_only=True, **options.keyed(key_file))
    except MissingKey:
        if key_file is not None:
            raise
        output.complain("no keys: archiving the encrypted segments as they are, without a hold")
        async with from_outside(path) as outside:
            yield outside
        return
    async with log:
        yield log


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
