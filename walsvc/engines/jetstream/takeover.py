"""Taking a stream over, or finding out what is in it.

Opening for writing claims the stream's next places, so that whatever its writer has on its way finds none any more, reads the
newest directory and what follows it, and publishes a directory with a higher epoch at the very next sequence. If anything
came in between, the stream refuses it, and opening looks again. The former writer gets Fenced at its next append.
"""

from __future__ import annotations

import asyncio
import errno
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from walsvc.disk.base import TakenOver
from walsvc.engines.jetstream.message import WINDOW, BadMessage, Kind, Message, claim_message, directory_messages
from walsvc.engines.jetstream.options import PAUSE_SECONDS
from walsvc.engines.jetstream.publish import FULL, Publisher, refusal_of
from walsvc.engines.jetstream.segment_table import SegmentTable
from walsvc.engines.jetstream.stream import ENVELOPE_BYTES, Stream
from walsvc.errors import Corruption, NoSpace, PathError, WalTimeout

Survey = tuple[SegmentTable, Publisher | None, int]


async def take_over(stream: Stream, approve: Callable[[SegmentTable], Awaitable[object]] | None = None) -> Survey:
    """The directory, a publisher that has the stream, and the last message. Raises WalTimeout where other writers keep
    taking it, and NoSpace. `approve` looks at the directory before anything is published, and raises where the stream is to be left as it is."""
    try:
        async with asyncio.timeout(stream.timeout):
            while True:
                found = await look(stream)
                if approve is not None:
                    await approve(found.directory)
                if found.newest is not None and found.claims < WINDOW:
                    await claim(stream, WINDOW - found.claims)
                    continue
                publisher = publisher_behind(stream, found)
                await publisher.start()
                try:
                    refused = await announce(stream, publisher, found.directory)
                except BaseException:
                    await publisher.abort()
                    raise
                if refused is None:
                    return found.directory, publisher, publisher.next_sequence - 1
                await publisher.abort()
                if refused.errno == errno.ENOSPC:
                    raise full(stream.path, stream.name, refused.strerror) from refused
                if not isinstance(refused, TakenOver):
                    raise PathError(f"the stream cannot be written: {refused.strerror}", path=stream.path) from refused
                # of several openings at once one shall get through
                await asyncio.sleep(random.uniform(0, PAUSE_SECONDS))
    except TimeoutError as error:
        raise WalTimeout(
            f"the stream could not be taken over within {stream.timeout} s",
            path=stream.path,
            hint="other writers take it as well, or its servers are slow",
        ) from error


async def claim(stream: Stream, count: int) -> None:
    """Take so many places, wherever the stream ends: what its writer has on its way finds none any more. How many were got is seen by
    looking again. Raises NoSpace where one was refused for that."""
    assert stream.stream_id is not None, "there is a message, and it was read"
    data, _ = claim_message(stream.stream_id)
    requests = [stream.request(stream.subject, data) for _ in range(count)]
    for reply in await asyncio.gather(*requests, return_exceptions=True):
        if not isinstance(reply, BaseException) and (refusal := refusal_of(reply)).code in FULL:
            raise full(stream.path, stream.name, refusal)


def full(path: str, name: str, reason: object) -> NoSpace:
    """The error for a log that cannot be opened, since that takes some messages."""
    return NoSpace(
        f"JetStream has no room for the messages that opening a log takes: {reason}",
        errno=errno.ENOSPC,
        path=path,
        hint=f"raise the limit that is reached: `nats stream edit {name} --max-bytes=N`, or that of the account or the servers; or "
        "delete other streams there. Nothing is lost: with read_only=True the log opens meanwhile",
    )


async def survey(stream: Stream) -> Survey:
    """The directory and the last message, for reading: nothing is taken over."""
    found = await look(stream)
    return found.directory, None, found.last


class Sight(NamedTuple):
    """Result of looking at a stream.

    Attributes:
        directory: the segments.
        newest: the last message that counts; None where there is none.
        last, last_crc: sequence and header CRC of the last message of all; 0 where there is none.
        claims: how many there are behind `newest`.
    """

    directory: SegmentTable
    newest: Message | None
    last: int
    last_crc: int
    claims: int


async def look(stream: Stream) -> Sight:
    """The directory and the end of the stream. While a writer goes on it may purge what was about to be read; so what is
    missing counts only when nothing was purged meanwhile, or the time is over."""
    deadline = time.monotonic() + stream.timeout
    while True:
        first, last = await stream.extent()
        try:
            return await look_once(stream, first, last)
        except Corruption:
            if time.monotonic() > deadline or (await stream.extent())[0] == first:
                raise


async def look_once(stream: Stream, first: int, last: int) -> Sight:
    """Read the newest directory of the messages `first` to `last`, and what follows it."""
    stream.stream_id, directory = None, SegmentTable()  # what an attempt before has assumed may be wrong
    if last == 0:
        return Sight(directory, None, 0, 0, 0)
    if first > last:
        raise stream.corruption(last, "the stream was emptied from outside")
    end, claims = await stream.message(last), 0
    counting = await newest_that_counts(stream, first, last)
    newest = await stream.message(counting.base)
    if newest.kind != Kind.DIRECTORY or newest.part:
        raise stream.corruption(counting.base, f"it is no directory, as message {counting.sequence} says")
    directory.apply(newest)
    async for sequence, message in stream.scan(newest.sequence + 1, last, newest):
        if isinstance(message, BadMessage):
            raise stream.bad(sequence, message)
        try:
            directory.apply(message)
        except BadMessage as error:
            raise stream.bad(sequence, error) from None
        claims = claims + is_claim(message) if message.kind == Kind.CLAIM else 0
        newest = newest if message.kind == Kind.CLAIM else message
    lowest = directory.first_sequence
    if lowest is not None and lowest < first:
        oldest = min(directory.files)
        reason = f"the messages below {first} were purged from outside"
        raise stream.corruption(lowest, reason, segment=oldest, lsn=oldest)
    return Sight(directory, newest, last, end.header_crc, claims)


def is_claim(message: Message) -> bool:
    """True if a message that comes as a claim was sent as one, and is no stray: every other message names a directory."""
    return message.base == 0


async def newest_that_counts(stream: Stream, first: int, last: int) -> Message:
    """The last message of `first` to `last` that is neither a claim nor a stray."""
    count = WINDOW + 1
    while True:
        start = max(first, last - count + 1)
        tail = [message async for message in stream.raw(start, last)]
        for end in range(len(tail), 0, -1):
            verdict = counts(tail[:end], whole=start == first)
            if verdict:
                return tail[end - 1]
            if verdict is None:
                break  # what is before these decides
        if start == first:
            raise stream.corruption(last, "no message of the stream counts")
        count *= 2


def counts(run: list[Message], *, whole: bool) -> bool | None:
    """True if the last of these messages counts; None: they are too few to tell (`whole`: there are no others before them).

    A stray is the first of its writer's messages behind the one that was refused, so it names another header than that of
    the message before it, or it follows such a one; a writer has no more than WINDOW of them.
    """
    if run[-1].kind == Kind.CLAIM:
        return False
    for steps, at in enumerate(range(len(run) - 1, 0, -1)):
        if run[at].previous_crc != run[at - 1].header_crc:
            return False
        if run[at - 1].kind == Kind.CLAIM or steps == WINDOW:
            return True  # behind a claim, only what opens an epoch knows the claim's header
    return True if whole or len(run) > WINDOW else None


def publisher_behind(stream: Stream, found: Sight) -> Publisher:
    """A publisher for the next epoch, behind the last message."""
    newest = found.newest
    if newest is None:
        stream.stream_id = secrets.randbits(64)
        return Publisher(stream, stream_id=stream.stream_id, epoch=1, base=1, last=0, last_crc=0)
    return Publisher(
        stream,
        stream_id=newest.stream_id,
        epoch=newest.epoch + 1,
        base=newest.base,
        last=found.last,
        last_crc=found.last_crc,
    )


async def announce(stream: Stream, publisher: Publisher, directory: SegmentTable) -> OSError | None:
    """Publish the directory that opens the epoch; the error if it did not get its place. Of several parts each is sent when
    the one before is stored: behind another opening's first part the second would find its place."""
    messages = directory_messages(directory.rows(), stream.client.max_payload - ENVELOPE_BYTES)
    own = secrets.randbits(63)  # else two openings at once would publish the same bytes, and both find theirs stored
    for message in messages:
        if (refused := await published(publisher, message._replace(offset=own))) is not None:
            return refused
    return None


async def published(publisher: Publisher, message: Message) -> OSError | None:
    """Publish a message and wait; the error if it did not get its place."""
    outcome: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()

    def done(error: OSError | None) -> None:
        if not outcome.done():
            outcome.set_result(error)

    publisher.put(message, done)
    return await outcome
