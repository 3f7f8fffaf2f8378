"""A stream as a log uses it: requests that are repeated while the cluster elects a leader, and checked messages.

Everything goes over plain NATS requests (the JetStream API's subjects and JSON, ADR-1, ADR-31), because batched direct
reads and the fields that matter here are not in the client's own classes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from walsvc.config import MIB
from walsvc.engines.jetstream.connect import close_client, within
from walsvc.engines.jetstream.message import BadMessage, Kind, Message, decode_message
from walsvc.engines.jetstream.options import PAUSE_SECONDS, REQUEST_SECONDS, Address, JetStreamOptions
from walsvc.errors import Corruption, PathError, UnsupportedFormat

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

logger: logging.Logger = logging.getLogger("walsvc.jetstream")
BATCH_MESSAGES = 256  # read by one request
BATCH_BYTES = 4 * MIB
NOT_FOUND, NO_MESSAGE = 10059, 10037  # JetStream's error codes: no such stream, no such message
ENVELOPE_BYTES = 1024  # of a message, for NATS headers and our own, at most


class ApiError(Exception):
    """JetStream answered a request with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("description", "unknown error")))
        self.code: int = int(error.get("err_code", 0))
        self.status: int = int(error.get("code", 0))


class Stream:
    """Requests to one stream. Attributes: name, path (for messages), servers (of the address), client, stream_id (None until a
    message was read)."""

    def __init__(self, client: Client, address: Address, options: JetStreamOptions) -> None:
        self.client = client
        self.name: str = address.stream
        self.path: str = str(address)
        self.servers: tuple[str, ...] = address.servers
        self.timeout: float = options.timeout
        self.stream_id: int | None = None
        self.bytes_read: int = 0
        self._closed = False
        self._limits: set[asyncio.Timeout] = set()  # of the requests under way

    @property
    def subject(self) -> str:
        """The subject of the log's messages."""
        return f"walsvc.{self.name}"

    async def close(self) -> None:
        """Disconnect. Requests under way end at once, with PathError."""
        self._closed = True
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(0)
        await close_client(self.client)

    # ---- requests

    async def request(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> Msg:
        """Send one request and return its answer. Raises nats.errors.Error where none comes."""
        return await within(None, self.client.request(subject, payload, timeout=REQUEST_SECONDS, headers=headers))

    async def ask(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A JetStream API request, repeated until there is an answer. Raises ApiError for an error that will stay, and
        PathError when nobody answers in time."""
        from nats.errors import ConnectionClosedError, Error

        payload = json.dumps(body).encode() if body else b""
        reason: object = "no answer"

        async def once() -> dict[str, Any] | None:
            nonlocal reason
            reply = await self.client.request(f"$JS.API.{verb}", payload, timeout=REQUEST_SECONDS)
            answer: dict[str, Any] = json.loads(reply.data)
            if "error" not in answer:
                return answer
            reason = error = ApiError(answer["error"])
            if error.status != 503:
                raise error
            return None

        limit = asyncio.timeout(self.timeout)
        self._limits.add(limit)
        try:
            async with limit:
                while True:
                    try:
                        if (answer := await within(None, once())) is not None:
                            return answer
                    except Error as lost:
                        reason = lost
                        if isinstance(lost, ConnectionClosedError):
                            break
                    await asyncio.sleep(PAUSE_SECONDS)
        except TimeoutError:
            pass
        finally:
            self._limits.discard(limit)
        raise self.unavailable(reason)

    def unavailable(self, reason: object) -> PathError:
        """No server answered in time, or no caller waits any more."""
        if self._closed:
            return PathError("the connection was closed", path=self.path, hint="open the log again")
        return PathError(
            f"JetStream did not answer for {self.timeout} s: {reason or type(reason).__name__}",
            path=self.path,
            hint="a quorum of the stream's servers must be up, with JetStream enabled for this account",
        )

    async def info(self) -> dict[str, Any] | None:
        """Ask for the stream's configuration and state; None where there is no such stream."""
        try:
            return await self.ask(f"STREAM.INFO.{self.name}")
        except ApiError as error:
            if error.code == NOT_FOUND:
                return None
            raise self.refused(error) from None

    async def extent(self) -> tuple[int, int]:
        """First and last sequence; (0, 0): nothing was ever published. First is above last when all was purged."""
        info = await self.info()
        if info is None:
            raise PathError("the stream is gone", path=self.path, hint="it was deleted from outside; restore a copy")
        state = info["state"]
        return state["first_seq"], state["last_seq"]

    def refused(self, error: ApiError) -> PathError:
        """JetStream refused a request."""
        return PathError(
            f"JetStream refused: {error}", path=self.path, hint="see the servers' logs, and the account's limits"
        )

    async def purge_before(self, sequence: int) -> None:
        """Drop the messages below `sequence`."""
        try:
            await self.ask(f"STREAM.PURGE.{self.name}", {"seq": sequence})
        except ApiError as error:
            raise self.refused(error) from None

    # ---- reading

    async def stored(self, sequence: int) -> bytes | None:
        """Fetch a message's bytes from the stream's leader, unchecked; None: it has no message at that sequence."""
        try:
            answer = await self.ask(f"STREAM.MSG.GET.{self.name}", {"seq": sequence})
        except ApiError as error:
            if error.code == NO_MESSAGE or error.status == 404:
                return None
            raise self.refused(error) from None
        return base64.b64decode(answer["message"].get("data", ""))

    async def message(self, sequence: int) -> Message:
        """Fetch one message from the leader and check it. Raises Corruption where it is missing or damaged."""
        data = await self.stored(sequence)
        if data is None:
            raise self.corruption(sequence, "it is missing")
        try:
            message = decode_message(data, stream_id=self.stream_id, sequence=sequence)
        except BadMessage as error:
            raise self.bad(sequence, error) from None
        self.stream_id = message.stream_id
        return message

    async def raw(self, first: int, last: int) -> AsyncIterator[Message]:
        """The messages from `first` to `last`, each checked by itself. Raises Corruption for one that is missing or damaged."""
        got = await self._batch(first, last - first + 1)
        for sequence in range(first, last + 1):
            checked = await self._checked(sequence, got.get(sequence), None)
            if isinstance(checked, BadMessage):
                raise self.bad(sequence, checked)
            yield checked

    async def scan(
        self, first: int, last: int, before: Message | None = None
    ) -> AsyncIterator[tuple[int, Message | BadMessage]]:
        """The messages from `first` to `last` in order, each with its sequence, checked also against the one before (`before`
        is the one before the first, where that is known).

        Any of the stream's servers may answer. What one of them does not have, or has damaged, the leader is asked for. What
        is missing or damaged there as well comes as a BadMessage. What does not count because the stream was claimed comes as
        a claim.
        """
        following = first
        while following <= last:
            count = min(BATCH_MESSAGES, last - following + 1)
            got = await self._batch(following, count)
            for sequence in range(following, max([*got, following]) + 1):
                checked = await self._checked(sequence, got.get(sequence), before)
                before = checked if isinstance(checked, Message) else None
                following = sequence + 1
                yield sequence, checked

    async def _checked(self, sequence: int, data: bytes | None, before: Message | None) -> Message | BadMessage:
        """The message in `data`, or as the leader has it, or what is wrong with it."""
        for attempt in ("any", "leader"):
            if attempt == "leader":
                data = await self.stored(sequence)
            if data is None:
                wrong = BadMessage("it is missing")
                continue
            try:
                message = decode_message(data, stream_id=self.stream_id, sequence=sequence)
                self.stream_id = message.stream_id
                return message if before is None else following_on(message, before)
            except BadMessage as error:
                wrong = error
        return wrong

    async def _batch(self, first: int, count: int) -> dict[int, bytes]:
        """Messages by one direct read, as far as the server that answers has them; none on any trouble."""
        got: dict[int, bytes] = {}
        await within(None, self._read_batch(first, count, got))
        return got

    async def _read_batch(self, first: int, count: int, got: dict[int, bytes]) -> None:
        from nats.errors import Error

        request = json.dumps({"seq": first, "batch": count, "max_bytes": BATCH_BYTES}).encode()
        with contextlib.suppress(Error, TimeoutError):
            inbox = self.client.new_inbox()
            replies = await self.client.subscribe(inbox)
            try:
                await self.client.publish(f"$JS.API.DIRECT.GET.{self.name}", request, reply=inbox)
                while (sequence := sequence_of(reply := await replies.next_msg(timeout=REQUEST_SECONDS))) is not None:
                    if sequence < first + count:
                        got[sequence] = reply.data
                        self.bytes_read += len(reply.data)
            finally:
                await replies.unsubscribe()

    # ---- errors

    def corruption(self, sequence: int, reason: str, **where: Any) -> Corruption:
        """The error for a message that is missing or damaged."""
        return Corruption(
            f"message {sequence} of stream {self.name}: {reason}",
            path=self.path,
            hint="acknowledged data is damaged; nothing was changed. Compare the stream's servers, or restore a copy",
            **where,
        )

    def bad(self, sequence: int, error: BadMessage, **where: Any) -> Corruption | UnsupportedFormat:
        """The error for a message that is not valid."""
        if error.newer:
            return UnsupportedFormat(
                f"message {sequence} of stream {self.name}: {error.reason}", path=self.path, hint="upgrade walsvc"
            )
        return self.corruption(sequence, error.reason, **where)


def following_on(message: Message, before: Message) -> Message:
    """The message as it counts behind the one before it. Raises BadMessage: rule 5 of a valid message."""
    opens = message.kind == Kind.DIRECTORY and message.part == 0 and message.epoch > before.epoch
    if message.kind == Kind.CLAIM or (before.kind == Kind.CLAIM and not opens):
        return message._replace(kind=Kind.CLAIM, epoch=before.epoch)
    if message.previous_crc != before.header_crc or not (opens or message.epoch == before.epoch):
        raise BadMessage("it does not follow the message before it")
    return message


def sequence_of(reply: Msg) -> int | None:
    """The sequence of a message that was read directly; None for the mark of a batch's end, and for an error."""
    headers = reply.headers or {}
    if "Nats-Sequence" not in headers:
        return None
    return int(headers["Nats-Sequence"])
