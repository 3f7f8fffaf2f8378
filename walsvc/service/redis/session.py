"""One client's connection: commands in, answers out, in the order in which they came.

An XADD is handed to the log at once, and its answer is written when the log's is there; so the XADDs of a pipeline share their
commits. A command that waits runs when everything before it is answered, and what comes behind it waits for it.

What is unanswered is counted, by this connection and by all together. Above either limit nothing more is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from walsvc.errors import WalError
from walsvc.service.redis.client import Client
from walsvc.service.redis.commands import Entry, find
from walsvc.service.redis.entries import id_of
from walsvc.service.redis.held import Held
from walsvc.service.redis.replies import Failure, encode, failure_of
from walsvc.service.redis.requests import Command, Malformed, Requests
from walsvc.service.redis.streams import xadd
from walsvc.tasks import begin_task

COMMAND_COST = 512  # bytes that a command takes beyond its own, at least
AT_ONCE = 512  # commands in one turn of the loop
STRANGER_BYTES_MAX = 1 << 16  # of a command of a client that has shown no token
WRITE_BUFFER_BYTES = 1 << 20  # above it nothing more is run
FULL = "OOM the server holds as much as it may: try again later, or raise pending_total_bytes"


class Door(Protocol):
    """Who counts clients."""

    def came(self, session: Session) -> str | None: ...
    def gone(self, session: Session) -> None: ...


class Session(asyncio.Protocol):
    """A connection.

    Args:
        client: whose it is.
        held: what is unanswered of all clients.
        bytes_max: of one command.
        door: counts clients.

    Attributes:
        client: whose it is.
        opened_at: when it came, in the loop's time.
    """

    def __init__(self, client: Client, held: Held, bytes_max: int, door: Door) -> None:
        self.client = client
        self._loop = asyncio.get_running_loop()
        self.opened_at: float = self._loop.time()
        self._held = held
        self._door = door
        self._bytes_max = bytes_max
        self._requests = Requests()
        self._transport: Any = None
        self._backlog: deque[Command] = deque()
        self._answers: deque[Any] = deque()  # bytes, or an append that the log has not answered
        self._watched = False  # the first of them
        self._working: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None  # of the one that waits until everything is answered
        self._again: asyncio.Handle | None = None
        self._stuck_since: float | None = None

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.client.begin()
        if (refusal := self._door.came(self)) is not None:
            self._last_words(Failure(refusal))

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        try:
            most = STRANGER_BYTES_MAX if self.client.grant is None else self._bytes_max
            commands = self._requests.feed(data, most)
        except Malformed as error:
            self._last_words(Failure(str(error)))
            return
        self._backlog += commands
        self._held.charge(self, len(data) + COMMAND_COST * len(commands))
        self._go_on()
        if self._held.over and self._requests.incomplete_bytes and not self._busy:
            self._last_words(Failure(FULL))  # nothing but more of it could make less what it holds

    def eof_received(self) -> bool:
        self._say_no_more()
        return bool(self._answers)  # who has said all may still wait for what the log has

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._backlog.clear()
        for append in self._answers:
            if type(append) is not bytes:
                append.add_done_callback(fetched)
        self._answers.clear()
        for each in (self._working, self._again):
            if each is not None:
                each.cancel()
        self._held.forget(self)
        self.client.leave()
        self._door.gone(self)

    def pause_writing(self) -> None:
        self._stuck_since = self._loop.time()

    def resume_writing(self) -> None:
        self._stuck_since = None
        self._go_on()

    # ---- commands

    @property
    def _busy(self) -> bool:
        return bool(self._backlog or self._answers or self._working is not None)

    @property
    def _over(self) -> bool:
        return self._transport is None or self._transport.is_closing() or self.client.leaving

    def _go_on(self) -> None:
        """Run what can be run, write what can be written."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        left = AT_ONCE
        while self._backlog and self._working is None and self._stuck_since is None and not self._over:
            if not left:
                self._again = self._loop.call_soon(self._go_on)
                break
            left -= 1
            self._begin(self._backlog.popleft())
        self._write()

    def _begin(self, command: Command) -> None:
        client = self.client
        try:
            entry = find(client, command)
            if entry.waits or (entry.right is not None and not client.ready):
                self._working = begin_task(self._work(entry, command))
            else:
                self._answer(entry, entry.call(client, command))
        except (Failure, WalError) as error:
            self._say(error)

    async def _work(self, entry: Entry, command: Command) -> None:
        """Run a command that waits, once everything before it is answered."""
        try:
            while self._answers:
                self._idle = self._loop.create_future()
                await self._idle
            if entry.right is not None:
                await self.client.take_log()
            answer = entry.call(self.client, command)
            self._answer(entry, await answer if entry.waits else answer)
        except (Failure, WalError) as error:
            self._say(error)
        finally:
            self._working = None
        self._go_on()

    def _answer(self, entry: Entry, value: Any) -> None:
        appended = entry.call is xadd and value is not None
        self._answers.append(value if appended else encode(value, self.client.resp))

    def _say(self, error: Failure | WalError) -> None:
        failure = failure_of(error) if isinstance(error, WalError) else error
        self._answers.append(encode(failure, self.client.resp))

    # ---- answers

    def _write(self) -> None:
        """Write the answers that are there, in order."""
        answers, ready = self._answers, list[bytes]()
        while answers:
            head = answers[0]
            if type(head) is not bytes:
                if not head.done():
                    if not self._watched:
                        self._watched = True
                        head.add_done_callback(self._answered)
                    break
                head = self._added(head)
            ready.append(head)
            answers.popleft()
        if ready and self._transport is not None:
            self._transport.write(b"".join(ready))
        if answers:
            return
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if self.client.leaving:
            self._backlog.clear()
            if self._working is None and self._transport is not None:
                self._transport.close()
        elif not self._busy:
            self._held.settle(self, self._requests.incomplete_bytes)

    def _answered(self, _: object) -> None:
        self._watched = False
        self._write()

    def _added(self, append: Any) -> bytes:
        """The answer of an XADD whose record is durable, or is not going to be."""
        try:
            result = append.result()
        except WalError as error:
            return encode(failure_of(error), self.client.resp)
        self.client.written = result.lsn
        text = id_of(result.lsn)
        return b"$%d\r\n%s\r\n" % (len(text), text)

    def _last_words(self, failure: Failure) -> None:
        """Say an error behind which nothing is understood, and end."""
        self._backlog.clear()
        self._answers.append(encode(failure, self.client.resp))
        self.client.leaving = True
        self._write()

    # ---- for others

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def look(self, now: float, handshake_seconds: float, idle_seconds: float) -> None:
        """End a client that has shown no token for so long, or has not read its answers."""
        silent = self.client.grant is None and now - self.opened_at > handshake_seconds
        stuck = self._stuck_since is not None and now - self._stuck_since > idle_seconds
        if silent or stuck:
            self.abort()

    def _say_no_more(self) -> None:
        """Run nothing more; what is being run ends unanswered, appends excepted."""
        self.client.leaving = True
        self._backlog.clear()
        if self._working is not None:
            self._working.cancel()

    async def settled(self) -> None:
        """Take nothing more, and wait until every append is answered."""
        self._say_no_more()
        await asyncio.gather(*(each for each in self._answers if type(each) is not bytes), return_exceptions=True)
        self._write()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()


def fetched(append: Any) -> None:
    """Nobody is there any more to hear how an append ended."""
    if not append.cancelled():
        append.exception()
