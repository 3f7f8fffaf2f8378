"""`walsvc inspect`: what files a log consists of, and what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from walsvc.cli import exits, options, output, runner

if TYPE_CHECKING:
    from walsvc.format.group import GroupHeader
    from walsvc.log.inspect import Survey, Walk

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
        from walsvc.log.inspect import survey

        seen: list[GroupHeader] = []
        found = await survey(path, seen.append if groups else None, options.keys_or_blind(key_file))
        writer = machine.lock_holder(path)
        if as_json:
            told = as_dict(found, writer)
            if groups:
                told["groups"] = [group_as_dict(each) for each in seen]
            output.emit_json(told)
        else:
            show(found, writer)
            if groups:
                output.echo()
                output.table(GROUP_COLUMNS, [group_row(each) for each in seen])
        for each in found.segments:
            if each.error is not None:
                return runner.report(each.error)
        return exits.OK

    runner.run(verb, only_reads=True)


def state_of(walked: Walk, *, newest: bool) -> str:
    """In one word: damaged, sealed, active (the newest), or unsealed (a crash interrupted the change of segments)."""
    if walked.error is not None:
        return "damaged"
    if walked.sealed:
        return "sealed"
    return "active" if newest else "unsealed"


def last_lsn(walked: Walk, following: Walk | None) -> int | None:
    """Its last record; None when it has none. A segment ends where the next begins, whatever else is left in it."""
    if walked.header is None:
        return None
    end = walked.next_lsn
    if following is not None and following.header is not None:
        end = min(end, following.header.first_lsn)
    return end - 1 if end > walked.header.first_lsn else None


def with_following(segments: list[Walk]) -> list[tuple[Walk, Walk | None]]:
    """Each segment with the one after it."""
    return list(zip(segments, [*segments[1:], None], strict=True))


def show(found: Survey, writer: int | None) -> None:
    """Print the segments for people."""
    from walsvc.format.double_write import DOUBLE_WRITE_NAME
    from walsvc.format.segment import segment_name

    rows: list[tuple[object, ...]] = []
    for walked, following in with_following(found.segments):
        header = walked.header
        rows.append(
            (
                walked.name,
                state_of(walked, newest=following is None),
                None if header is None else header.first_lsn,
                last_lsn(walked, following),
                walked.records,
                walked.groups,
                output.size(walked.end),
                output.size(walked.file_bytes),
                output.timestamp(walked.last_timestamp_ns) if walked.groups else None,
            )
        )
    rows += [
        (each.name, "spare", None, None, None, None, None, output.size(each.file_bytes), None) for each in found.spares
    ]
    output.table(SEGMENT_COLUMNS, rows)
    newest = found.segments[-1] if found.segments else None
    if newest is not None and newest.header is not None:
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
    """The first visible record; where that cannot be read without keys, the first one that may be."""
    lowest = next(each.header.first_lsn for each in found.segments if each.header is not None)
    return found.segments[-1].truncated or lowest


def as_dict(found: Survey, writer: int | None) -> dict[str, Any]:
    """Everything that `show` prints, and more, for JSON."""
    newest = found.segments[-1] if found.segments else None
    known = newest is not None and newest.header is not None
    return {
        "log_id": f"{newest.header.log_id:016x}" if newest is not None and newest.header is not None else None,
        "first_lsn": first_visible(found) if known else None,
        "next_lsn": newest.next_lsn if known and newest is not None else None,
        "closed": newest is not None and newest.closed,
        "writer_pid": writer,
        "segments": [segment_as_dict(*each) for each in with_following(found.segments)],
        "double_write": None if found.slots is None else [each._asdict() for each in found.slots],
        "spares": [{"name": each.name, "file_bytes": each.file_bytes} for each in found.spares],
    }


def segment_as_dict(walked: Walk, following: Walk | None) -> dict[str, Any]:
    """One segment for JSON."""
    header = walked.header
    return {
        "name": walked.name,
        "state": state_of(walked, newest=following is None),
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
        "created": None if header is None else output.timestamp(header.created_ns),
        "successor": walked.successor,
        "key_id": None if header is None else header.key_id.decode("utf-8", "replace") or None,
        "error": None if walked.error is None else str(walked.error),
    }


def flags_of(group: GroupHeader) -> list[str]:
    """Names of the flags that are set."""
    from walsvc.format.group import Flag

    return [flag.name.lower() for flag in Flag if group.flags & flag]


def group_row(group: GroupHeader) -> tuple[object, ...]:
    """One group for people."""
    return (
        f"{group.segment:016x}",
        group.offset,
        group.group_bytes,
        group.first_lsn,
        group.next_lsn - 1 if group.records else None,
        group.payload_bytes,
        group.durable_lsn,
        output.timestamp(group.timestamp_ns),
        " ".join(flags_of(group)),
    )


def group_as_dict(group: GroupHeader) -> dict[str, Any]:
    """One group for JSON."""
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
        "timestamp": output.timestamp(group.timestamp_ns),
        "flags": flags_of(group),
    }
