"""Logs with a replica, and what both hold, to the group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import walsvc
from tests.engines.cluster import Cluster
from walsvc import Log, Quorum, Record
from walsvc.config import WalConfig
from walsvc.engines.jetstream.message import BadMessage, Kind
from walsvc.engines.jetstream.options import parse_replica
from walsvc.engines.jetstream.stream import Stream
from walsvc.engines.replication.restore import reach
from walsvc.format.chain import Chain, Need
from walsvc.format.group import BadGroup, Flag, decode_group_header
from walsvc.format.segment import decode_segment_header

SEGMENT = 65536


def replica_url(cluster: Cluster, stream: str, **options: Any) -> str:
    """The address of a replica, with the monitoring ports of the test's servers."""
    given = {"monitor": ",".join(cluster.monitor), **options}
    return f"{cluster.url(stream)}?" + "&".join(f"{name}={value}" for name, value in given.items())


def alone_url(cluster: Cluster) -> str:
    """The address of a replica in a cluster of one."""
    return replica_url(cluster, "log", replicas=1, allow_unsynced=1)


def opening(path: Path, url: str | None, **options: Any) -> Any:
    """walsvc.open for a log of small segments."""
    return walsvc.open(path, replicate=url, config=WalConfig(segment_bytes=SEGMENT, disk="threads"), **options)


async def replicated(log: Log) -> int:
    """Wait until the replica has everything, metadata too, which has no LSN; returns the last LSN."""
    return await log.wait_replicated()


async def held(log: Log) -> int:
    """Replicate everything, and go on until the hold has moved to the active segment; returns it."""
    await replicated(log)
    while log.holds()["replica"] < log.writer.segments.ids()[-1]:
        await log.append(b"", mode=Quorum)
    return log.holds()["replica"]


async def records(log: Any, start: int | None = None, stop: int | None = None) -> list[Record]:
    """The log's records."""
    return [record async for record in log.read(start, stop)]


async def records_in(path: Path) -> list[Record]:
    """The records of a log that nobody has open."""
    async with walsvc.open(path, read_only=True) as log:
        return await records(log)


def groups_in(path: Path) -> dict[int, list[bytes]]:
    """Header and groups of each segment in a directory, as bytes, seals excepted."""
    found: dict[int, list[bytes]] = {}
    names = sorted(path.glob("*.wal"))
    for name, following in zip(names, [*names[1:], None], strict=True):
        until = None if following is None else int(following.stem, 16)
        data = name.read_bytes()
        header = decode_segment_header(data)
        chain = Chain.begin(header, data, len(data))
        groups = found[header.first_lsn] = [data[: header.data_start]]
        while True:
            try:
                taken = chain.take(data, 0)
            except BadGroup:
                break
            assert not isinstance(taken, Need)
            if taken.flags & Flag.SEAL or (until is not None and taken.records and taken.first_lsn >= until):
                break
            groups.append(data[taken.offset : taken.end])
    return found


def assert_beginning(copy: Path, whole: Path) -> None:
    """Every group of the copy is in the whole log at the same place, and none between is missing.

    The copy may still have segments at its beginning that the log has dropped.
    """
    groups = groups_in(whole)
    copied = {segment: found for segment, found in groups_in(copy).items() if segment >= min(groups)}
    assert list(copied) == [each for each in groups if each <= max(copied)]
    for segment, found in copied.items():
        assert found == groups[segment][: len(found)], f"segment {segment}"
        if segment != max(copied):
            assert len(found) == len(groups[segment]), f"segment {segment}"


async def groups_sent(url: str) -> list[tuple[int, int, int]]:
    """Segment, offset and CRC of every group in the stream, in the order in which they were stored. Every message is checked.

    One place may have two groups: a segment without records, full of metadata, gives way to another file of its name.
    """
    stream: Stream = await reach(*parse_replica(url))
    try:
        first, last = await stream.extent()
        sent: list[tuple[int, int, int]] = []
        async for _, message in stream.scan(first, last):
            assert not isinstance(message, BadMessage), message.reason
            if message.kind == Kind.WRITE:
                body = message.body.ljust(message.length, b"\0")  # a header's last byte may be zero, too
                at = 0 if message.offset else decode_segment_header(body).data_start
                while message.part == 0 and at < len(body):
                    header = decode_group_header(body, at)
                    sent.append((message.segment, message.offset + at, header.header_crc))
                    at += header.group_bytes
        return sent
    finally:
        await stream.client.close()
