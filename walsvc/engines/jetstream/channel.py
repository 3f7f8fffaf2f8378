"""The way of a published message to its stream, and of the acknowledgement back."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from walsvc.engines.jetstream.connect import within
from walsvc.engines.jetstream.sent import Sent
from walsvc.engines.jetstream.stream import Stream

if TYPE_CHECKING:
    from nats.aio.msg import Msg


class Channel:
    """Sends messages of one publisher, each with the sequence that the stream must end with before it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._inbox = stream.client.new_inbox()
        # two openings may count the same epoch: neither takes the other's copy for its own
        self._own = secrets.token_hex(8)
        self._subscription: Any = None

    async def open(self, answered: Callable[[Msg], Awaitable[None]]) -> None:
        """Listen: `answered` gets every answer to `publish`; its subject ends with the message's sequence."""
        self._subscription = await within(None, self._stream.client.subscribe(f"{self._inbox}.*", cb=answered))

    async def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(Exception):  # the connection may be gone, and with it the subscription
            await self._subscription.unsubscribe()

    async def publish(self, sent: Sent) -> None:
        """Send a message and do not wait for its answer. Raises nats.errors.Error."""
        reply = f"{self._inbox}.{sent.sequence}"
        await self._stream.client.publish(self._stream.subject, sent.data, reply, self._headers(sent))

    async def request(self, sent: Sent) -> Msg:
        """Send a message, and return its answer. Raises nats.errors.Error where there is none."""
        return await self._stream.request(self._stream.subject, sent.data, self._headers(sent))

    def _headers(self, sent: Sent) -> dict[str, str]:
        return {
            "Nats-Expected-Last-Sequence": str(sent.sequence - 1),
            "Nats-Msg-Id": f"{self._own}.{sent.sequence}",
        }
