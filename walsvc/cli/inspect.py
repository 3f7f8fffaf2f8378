"""`walsvc inspect`: what files a log consists of, and what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from walsvc.cli import exits, options, output, runner
from walsvc.plain import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from walsvc.errors import WalError
    from walsvc.format.group import GroupHeader
    from walsvc.keyring import Keys
    from walsvc.log.offline.inspect import SegmentWalk, Survey

SEGMENT_COLUMNS = ("segment", "state", "first LSN", "last LSN", "records", "groups", "used", "of", "written until")
GROUP_COLUMNS = ("segment", "offset", "bytes", "first LSN", "last LSN", "payload", "durable LSN", "closed at", "flags")


def inspect(
    path: options.LogPath,
    groups: Annotated[bool, typer.Option("--groups", help="List every group, too.")] = False,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Show segments and groups.

    Works beside a program that is writing the log. Reads everything that is in use. A damaged file is shown as such, and the exit code tells; `walsvc verify` says more.
    """

    async def verb() -> int:
        from walsvc.bench import machine
        from walsvc.log.offline.inspect import survey

        seen: list[GroupHeader] = []
        keys = options.keys_or_blind(key_file)
        found = await survey(path, seen.append if groups else None, keys)
        errors = await damage_of(path, found, keys)
        writer = machine.lock_holder(path)
        if as_json:
            told = as_dict(found, errors, writer)
            if groups:
                told["groups"] = [group_as_dict(each) for each in seen]
            output.emit_json(told)
        else:
            show(found, errors, writer)
            if groups:
                output.echo()
                output.table(GROUP_COLUMNS, [group_row(each) for each in seen])
        return runner.report(min(errors, key=exits.code_of)) if errors else exits.OK

    runner.run(verb, only_reads=True)


async def damage_of(path: str, found: Survey, keys: Keys) -> Sequence[WalError]:
    """The damage of the log. Where the files do not simply follow each other, `verify` judges: it knows what a crash may
    leave, what opening makes up for, and what a writer does meanwhile."""
    from walsvc.bench import machine
    from walsvc.log.offline.repair import longest_beginning
    from walsvc.log.offline.verify import verify

    newest = found.segments[-1]
    _, reasons = longest_beginning(found.segments, {})
    first_missing = newest.header is not None and 0 < newest.truncated < first_lsn_of(found.segments[0])
    if reasons or first_missing or newest.sealed:
        return (await verify(path, keys=keys, holder=lambda: machine.lock_holder(path))).errors
    return ()


def first_lsn_of(walked: SegmentWalk) -> int:
    """The LSN in the file's name."""
    from walsvc.format.segment import parse_name

    return parse_name(walked.name, ".wal") or 0


def error_of(walked: SegmentWalk, errors: Sequence[WalError]) -> WalError | None:
    """The damage inside a segment; a missing neighbour is none of it."""
    if walked.error is not None or walked.sealed:
        return walked.error
    return next((each for each in errors if each.segment == first_lsn_of(walked) and each.offset), None)


def missing_behind(walked: SegmentWalk, following: SegmentWalk | None, errors: Sequence[WalError]) -> str | None:
    """Name of the successor that a sealed segment names and whose file is missing; None: it is there, or may be."""
    from walsvc.format.segment import segment_name

    there = following is not None and first_lsn_of(following) <= walked.next_lsn
    return segment_name(walked.next_lsn) if errors and walked.sealed and not there else None


def state_of(walked: SegmentWalk, errors: Sequence[WalError], *, newest: bool) -> str:
    """The state of a segment in one word: damaged, sealed, active (the newest), or unsealed (a crash interrupted a rotation)."""
    if error_of(walked, errors) is not None:
        return "damaged"
    if walked.sealed:
        return "sealed"
    return "active" if newest else "unsealed"


def last_lsn(walked: SegmentWalk, following: SegmentWalk | None) -> int | None:
    """LSN of a segment's last record; None: it has none. A segment ends where the next one begins, whatever else is left in it."""
    if walked.header is None:
        return None
    end = walked.next_lsn
    if following is not None and following.header is not None:
        end = min(end, following.header.first_lsn)
    return end - 1 if end > walked.header.first_lsn else None


def with_following(segments: list[SegmentWalk]) -> list[tuple[SegmentWalk, SegmentWalk | None]]:
    """Pair each segment with the one after it."""
    return list(zip(segments, [*segments[1:], None], strict=True))


def show(found: Survey, errors: Sequence[WalError], writer: int | None) -> None:
    """Print the segments for people."""
    from walsvc.format.double_write import DOUBLE_WRITE_NAME
    from walsvc.format.segment import segment_name

    rows: list[tuple[object, ...]] = []
    for walked, following in with_following(found.segments):
        header = walked.header
        rows.append(
            (
                walked.name,
                state_of(walked, errors, newest=following is None),
                None if header is None else header.first_lsn,
                last_lsn(walked, following),
                walked.records,
                walked.groups,
                output.size(walked.end),
                output.size(walked.file_bytes),
                timestamp(walked.last_timestamp_ns) if walked.groups else None,
            )
        )
        if (missing := missing_behind(walked, following, errors)) is not None:
            rows.append((missing, "missing", walked.next_lsn, *[None] * 6))
    rows += [
        (each.name, "spare", None, None, None, None, None, output.size(each.file_bytes), None) for each in found.spares
    ]
    output.table(SEGMENT_COLUMNS, rows)
    newest = found.segments[-1]
    if newest.header is not None:
        first, end = first_visible(found), newest.next_lsn
        held = f"LSN {first} to {end - 1}" if end > first else f"no records, the next LSN is {end}"
        how = "closed in order" if newest.closed else "not closed in order"
        output.echo(f"log {newest.header.log_id:016x}: {held}; generation {newest.generation}, {how}")
    if found.slots is not None:
        groups = [f"offset {each.group_offset} of {segment_name(each.segment)}" for each in found.slots]
        output.echo(f"{DOUBLE_WRITE_NAME} holds the groups at {', '.join(groups) or 'no place yet'}")
    if writer is not None:
        output.echo(f"process {writer} has it open for writing")


def first_visible(found: Survey) -> int:
    """LSN of the first visible record; where that cannot be read without keys, of the first one that may be visible."""
    lowest = next(each.header.first_lsn for each in found.segments if each.header is not None)
    return found.segments[-1].truncated or lowest


def as_dict(found: Survey, errors: Sequence[WalError], writer: int | None) -> dict[str, Any]:
    """The facts that `show` prints, and more, for JSON."""
    newest = found.segments[-1]
    followed = with_following(found.segments)
    slots = (
        None if found.slots is None else [{**each._asdict(), "log_id": f"{each.log_id:016x}"} for each in found.slots]
    )
    return {
        "log_id": None if newest.header is None else f"{newest.header.log_id:016x}",
        "first_lsn": None if newest.header is None else first_visible(found),
        "next_lsn": None if newest.header is None else newest.next_lsn,
        "closed": newest.closed,
        "writer_pid": writer,
        "segments": [segment_as_dict(*each, errors) for each in followed],
        "missing": [name for each in followed if (name := missing_behind(*each, errors)) is not None],
        "errors": [str(each) for each in errors],
        "double_write": slots,
        "spares": [{"name": each.name, "file_bytes": each.file_bytes} for each in found.spares],
    }


def segment_as_dict(walked: SegmentWalk, following: SegmentWalk | None, errors: Sequence[WalError]) -> dict[str, Any]:
    """A segment as a JSON object."""
    header, error = walked.header, error_of(walked, errors)
    return {
        "name": walked.name,
        "state": state_of(walked, errors, newest=following is None),
        "first_lsn": None if header is None else header.first_lsn,
        "last_lsn": last_lsn(walked, following),
        "records": walked.records,
        "groups": walked.groups,
        "payload_bytes": walked.payload_bytes,
        "used_bytes": walked.end,
        "file_bytes": walked.file_bytes,
        "block_bytes": None if header is None else header.block_bytes,
        "align": None if header is None else header.align,
        "ordinal": None if header is None else header.ordinal,
        "generation": None if header is None else walked.generation,
        "created": None if header is None else timestamp(header.created_ns),
        "successor": walked.successor,
        "key_id": None if header is None else header.key_id.decode("utf-8", "replace") or None,
        "error": None if error is None else str(error),
    }


def flags_of(group: GroupHeader) -> list[str]:
    """Names of the flags that are set."""
    from walsvc.format.group import Flag

    return [flag.name.lower() for flag in Flag if group.flags & flag]


def group_row(group: GroupHeader) -> tuple[object, ...]:
    """A group as a row of the table."""
    return (
        f"{group.segment:016x}",
        group.offset,
        group.group_bytes,
        group.first_lsn,
        group.next_lsn - 1 if group.records else None,
        group.payload_bytes,
        group.durable_lsn,
        timestamp(group.timestamp_ns),
        " ".join(flags_of(group)),
    )


def group_as_dict(group: GroupHeader) -> dict[str, Any]:
    """A group as a JSON object."""
    return {
        "segment": group.segment,
        "offset": group.offset,
        "group_bytes": group.group_bytes,
        "first_lsn": group.first_lsn,
        "records": group.records,
        "payload_bytes": group.payload_bytes,
        "meta_bytes": group.meta_bytes,
        "durable_lsn": group.durable_lsn,
        "generation": group.generation,
        "timestamp": timestamp(group.timestamp_ns),
        "flags": flags_of(group),
    }
