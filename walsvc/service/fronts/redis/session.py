"""One client's connection: commands in, answers out, in the order in which they came.

An XADD is handed to the log at once, and its answer is written when the log's is there; so the XADDs of a pipeline share their
commits. A command that waits runs when everything before it is answered, and what comes behind it waits for it.

For the server it is a connection like any other: what it has not been answered is its share of the budget.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from walsvc.errors import WalError, WalTimeout
from walsvc.service.fronts.redis.client import Client
from walsvc.service.fronts.redis.collected import Entry
from walsvc.service.fronts.redis.commands import PLAIN_ADD, find, leave, reset
from walsvc.service.fronts.redis.replies import Failure, encode, failure_of
from walsvc.service.fronts.redis.requests import COMMAND_COST, Command, Malformed, Requests
from walsvc.service.fronts.redis.streams import xadd
from walsvc.service.fronts.redis.transactions import collect, discard, execute, multi, unwatch, watch
from walsvc.service.server.duplex import Duplex
from walsvc.service.server.progress import Progress
from walsvc.tasks import begin_task

if TYPE_CHECKING:
    from walsvc.api import Log
    from walsvc.service.server.auth import Grant
    from walsvc.service.server.shared import Shared

AT_ONCE = 512  # commands in one turn of the loop
OUTSIDE = {multi, execute, discard, watch, unwatch, leave, reset}  # commands that no transaction keeps
STRANGER_BYTES_MAX = 1 << 16  # of a command of a client that has shown no token


class Session(Duplex):
    """A connection. Belongs to the event loop in which it is made.

    Attributes:
        leaving: the connection ends: no further command of the client is run.
        opened_at: when it came, in the loop's time.
    """

    streams = 0

    def __init__(self, shared: Shared) -> None:
        progress = Progress(shared.limits.idle_seconds)
        super().__init__(asyncio.get_running_loop(), shared.budget.share(self), progress)
        self.leaving: bool = False
        self.opened_at: float = self.loop.time()
        self._shared = shared
        self._client = Client(shared)
        self._requests = Requests()
        self._backlog: deque[Command] = deque()
        self._answers: deque[Any] = deque()  # bytes, or an append that the log has not answered
        self._owed = False  # the log has something of it to answer
        self._awaited: Any = None  # the append whose end writes on
        self._working: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None  # of a command that waits until everything before it is answered

    # ---- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        refusal = self._shared.roster.admit(self)
        if refusal is not None:
            self.leave(refusal, "connections")
            return
        self._client.begin()

    def data_received(self, data: bytes) -> None:
        self._shared.counts.received_bytes += len(data)
        if self.leaving:
            return
        most = STRANGER_BYTES_MAX if self.grant is None else self._shared.limits.frame_bytes
        try:
            commands = self._requests.feed(data, most)
        except Malformed as error:
            self._last_words(Failure(str(error)))
            return
        self._backlog += commands
        self._shared.counts.requests["redis"] += len(commands)
        self.share.hold(len(data) + COMMAND_COST * len(commands))
        if (incoming := self._requests.incomplete_bytes) or self.share.arrived:
            self.share.arrive(incoming)
            self.progress.holds(incoming, self._collected_bytes, self._requests.expected_bytes, self.loop.time())
        if self.share.held > self._shared.limits.pending_bytes:
            self.pause_reading("unanswered")
        self._go_on()
        grant = self._client.grant
        if grant is not None and grant.limited and not self.leaving:
            self._shared.rates.hold_back(grant, self, len(commands), len(data))
        self.share.check()

    def eof_received(self) -> bool:
        self._say_no_more()
        self._write()
        return bool(self._answers)  # a client that has said all may still wait for the log

    def connection_lost(self, error: Exception | None) -> None:
        self._say_no_more()
        for append in self._answers:
            if type(append) is not bytes:
                append.add_done_callback(fetched)
        self._answers.clear()
        self._client.collected = None
        self._answered_all()
        self.share.hold(-self.share.held)
        self.share.leave()
        self._client.leave()
        self._shared.roster.forget(self)
        self.lost()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    # ---- commands

    def _go_on(self) -> None:
        """Run the commands that may run, and write the answers that are there."""
        left, backlog = AT_ONCE, self._backlog
        while backlog and self._working is None and not self.leaving and self.stuck_since is None:
            if not left:
                self.loop.call_soon(self._go_on)
                break
            left -= 1
            self._begin(backlog.popleft())
        self._write()

    def _begin(self, command: Command) -> None:
        client = self._client
        try:
            entry = find(client, command)
            if entry is PLAIN_ADD and client.collected is None and client.ready:
                self._answers.append(xadd(client, command))
                if not self._owed:
                    self._owed = True
                    self._shared.budget.asked += 1
            elif client.collected is not None and entry.call not in OUTSIDE:
                self._answers.append(encode(collect(client, entry, command), client.resp))
            elif entry.waits or (entry.right is not None and not client.ready):
                self._working = begin_task(self._work(entry, command))
            else:
                self._answer(entry.call(client, command))
        except (Failure, WalError) as error:
            if client.collected is not None and command[0].upper() not in (b"MULTI", b"WATCH"):
                client.collected.broken = True
            self._say(error)

    async def _work(self, entry: Entry, command: Command) -> None:
        """Run a command that waits, once everything before it is answered."""
        try:
            while self._answers:
                self._idle = self.loop.create_future()
                await self._idle
            if entry.right is not None:
                await self._client.take_log()
            if entry is PLAIN_ADD:
                self._begin(command)
            else:
                answer = entry.call(self._client, command)
                self._answer(await answer if entry.waits else answer)
        except (Failure, WalError) as error:
            self._say(error)
        finally:
            self._working = None
        self._go_on()

    def _answer(self, value: Any) -> None:
        self._answers.append(encode(value, self._client.resp))
        self.leaving = self.leaving or self._client.leaving

    def _say(self, error: Failure | WalError) -> None:
        self._answers.append(self._said(error))

    def _said(self, error: Failure | WalError) -> bytes:
        """Turn an error into an answer; errors of the log are counted."""
        if isinstance(error, WalError):
            self._shared.counts.errors[type(error).__name__] += 1
            error = failure_of(error)
        return encode(error, self._client.resp)

    # ---- answers

    def _write(self, _: object = None) -> None:
        """Write the answers that are there, in order, and come again for the first that is not."""
        answers, ready = self._answers, list[bytes]()
        while answers and ((head := answers[0]).__class__ is bytes or head.done()):
            ready.append(head if head.__class__ is bytes else self._added(head))
            answers.popleft()
        if ready:
            self.write(ready[0] if len(ready) == 1 else b"".join(ready), more=False)
        if not answers:
            self._awaited = None
            self._answered_all()
        elif answers[0] is not self._awaited:
            self._awaited = answers[0]
            self._awaited.add_done_callback(self._write)

    def _answered_all(self) -> None:
        """Take notice that every complete command is answered."""
        if self._owed:
            self._owed = False
            self._shared.budget.answered()
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if self.leaving:
            self._backlog.clear()
            if self._transport is not None:
                self._transport.close()
        if not self._backlog and self._working is None:
            self.share.hold(self._collected_bytes - self.share.held)
            if not self.reading:
                self.resume_reading("unanswered")

    def _added(self, append: Any) -> bytes:
        """The answer of an XADD whose append has ended."""
        try:
            result = append.result()
        except WalError as error:
            return self._said(error)
        lsn = self._client.written = result.lsn
        return b"$%d\r\n%d-0\r\n" % (len(str(lsn)) + 2, lsn)

    def _last_words(self, failure: Failure) -> None:
        """Answer with an error after which no command can be parsed, and end."""
        self._say_no_more()
        self._answers.append(encode(failure, self._client.resp))
        self._write()

    def _say_no_more(self) -> None:
        """Run nothing more; a command that waits for something ends unanswered."""
        self.leaving = True
        self._backlog.clear()
        if self._working is not None:
            self._working.cancel()

    # ---- for the roster, the budget and the server's watch

    @property
    def log(self) -> Log | None:
        """The log of the client; None: it has none yet."""
        opened: Log | None = self._client.opened
        return opened

    @property
    def grant(self) -> Grant | None:
        """Rights and namespaces of the client; None: it has shown no token."""
        return self._client.grant

    @property
    def incomplete(self) -> bool:
        """True if the client has sent a part of a command, or commands that wait for EXEC."""
        return self.share.arrived > 0 or self._collected_bytes > 0

    @property
    def _collected_bytes(self) -> int:
        """Bytes that are kept until EXEC."""
        return 0 if self._client.collected is None else self._client.collected.bytes

    @property
    def streaming(self) -> bool:
        """False: the log never waits for the rest of a command."""
        return False

    def leave(self, error: WalError, reason: str) -> None:
        """Tell the client why the connection ends, and end it."""
        self._shared.counts.reject(self.name, error, reason)
        self._last_words(failure_of(error))

    def replace(self) -> None:
        """Do nothing: the client speaks for no producer."""

    def look(self, now: float) -> None:
        """End the connection where the client has shown no token in time, does not go on with a command, or does not read its answers."""
        limits = self._shared.limits
        fault = self.progress.fault(now, self._shared.budget.tight_since)
        if self.grant is None and now - self._client.strange_since > limits.handshake_seconds:
            fault = f"no token came within {limits.handshake_seconds:g} s"
        if self.takes_nothing(now, limits.idle_seconds):
            self._shared.counts.reject(self.name, WalTimeout("the client does not read its answers"), "timeout")
            self.abort()
        elif fault is not None and not self.leaving:
            self.leave(WalTimeout(fault), "timeout")

    async def settled(self) -> None:
        """Read no further command, and wait until every append is answered."""
        self._say_no_more()
        await asyncio.gather(*(each for each in self._answers if type(each) is not bytes), return_exceptions=True)
        self._write()


def fetched(append: Any) -> None:
    """Retrieve the outcome of an append whose client is gone: asyncio complains of one that is not."""
    if not append.cancelled():
        append.exception()
