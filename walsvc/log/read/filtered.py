"""A segment's groups, those without wanted records passed over: by their headers, or by index and metadata alone."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from walsvc.checksum import crc32c
from walsvc.config import KIB
from walsvc.format.chain import Chain
from walsvc.format.group import GROUP_HEADER_BYTES, BadGroup, Bytes, GroupHeader
from walsvc.log.read.filter import Filter
from walsvc.log.read.stream import GroupStream, RawGroup

PASSING_BYTES = 64 * KIB  # read at a time while passing over groups


class Outline(NamedTuple):
    """A group whose payloads were not read: header, and a buffer that begins with the index; `at` is where the group would
    begin. `chain` stands before the group in file `name`."""

    header: GroupHeader
    data: Bytes
    at: int
    name: str
    chain: Chain


class FilteredStream(GroupStream):
    """Steps through a segment for a filter.

    Attributes:
        groups_passed: how many it passed over without reading their payloads.
    """

    groups_passed: int = 0

    def forget(self) -> None:
        super().forget()
        self._piece_bytes = PASSING_BYTES

    async def step(self, wanted: Filter, *, outline: bool = False) -> RawGroup | Outline | None:
        """Step behind the next group.

        Returns:
            None if it has nothing that is wanted; then its payloads were read only if they lay on the way. With `outline`
            an Outline instead of a group whose payloads do not lie on the way.

        Raises:
            BadGroup, Corruption, OSError: as `next`.
        """
        header = await self._found(self.chain.peek, identity)
        beyond = header.end - self._base - len(self._data)  # bytes of it that are yet to be read
        # nothing of an encrypted group counts, not even its header, before it has authenticated
        if beyond > 0 and self.cipher is None and not wanted.in_header(header):
            self._pass_over(header)
            return None
        if beyond > PASSING_BYTES and self.cipher is None:
            rest = await self._rest(header)
            at = -GROUP_HEADER_BYTES - header.payload_bytes
            if not wanted.in_index(header, rest, at):
                self._pass_over(header)
                return None
            if outline:
                found = Outline(header, rest, at, self.name, replace(self.chain))
                self._pass_over(header)
                return found
        raw = await self.next()
        if wanted.in_header(header) and wanted.in_index(*raw):
            return raw
        self._piece_bytes = PASSING_BYTES  # pieces grow only as long as what they hold is wanted
        return None

    def _pass_over(self, header: GroupHeader) -> None:
        self.groups_passed += 1
        self.chain.pass_over(header)
        self._ahead = None  # it would be of a place that is left behind
        self._piece_bytes = PASSING_BYTES

    async def _rest(self, header: GroupHeader) -> bytes:
        """Index, metadata and padding of a plain group, read alone, and checked by their CRC."""
        start = header.offset + GROUP_HEADER_BYTES + header.payload_bytes
        rest = await self.disk.read(self.name, start, header.end - start)
        self.bytes_read += len(rest)
        if len(rest) < header.end - start or crc32c(rest) != header.rest_crc:
            raise BadGroup("the CRC of index, metadata and padding is wrong")
        return rest


def identity(header: GroupHeader) -> GroupHeader:
    """The header itself: a group that is perhaps passed over is not taken."""
    return header
