"""One connection of a server: frames in, answers out. docs/PROTOCOL.md has its states as a table.

APPEND is the hot path: a frame becomes one entry of the log, its future gets a callback, and no task is made. What a group
commit answers is collected in the turn of the loop in which it comes, and leaves in one write.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging

from walsvc import __version__
from walsvc.api import Log
from walsvc.errors import Closed, InUse, ProtocolError, WalError, WalTimeout
from walsvc.service.server.auth import Grant
from walsvc.service.server.duplex import Duplex
from walsvc.service.server.greeting import Greeting
from walsvc.service.server.hearing import Hearing
from walsvc.service.server.notices import Notices
from walsvc.service.server.progress import Watch
from walsvc.service.server.requests import Requests
from walsvc.service.server.sessions import Sessions
from walsvc.service.server.shared import Shared
from walsvc.service.server.state import state_of
from walsvc.service.server.turns import BYTES_A_UNIT, Pace
from walsvc.service.wire.codes import code_of, error_frame
from walsvc.service.wire.frames import (
    FEATURES,
    VERSION,
    Append,
    Batch,
    Call,
    Cancel,
    Credit,
    Frame,
    Goodbye,
    Hello,
    Open,
    Ping,
    Pong,
    State,
    Welcome,
)
from walsvc.service.wire.protocol import encode

logger: logging.Logger = logging.getLogger("walsvc.service")
BATCH = "batch"  # why a client is not read from while its batch waits
LINGER_SECONDS = 2.0  # how long the peer has to read why the connection ends; what it still sends is thrown away
HTTP_REFUSAL = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nThis is a walsvc log, not HTTP.\n"


class Connection(Duplex):
    """A client, from its first byte to the last.

    Attributes:
        greeting: what is known of it.
        hearing: what it says.
        pace: how much was done for it of late.
        log: once it is welcome.
        requests, sessions: what it has asked.
        leaving: it is over, and nothing that it says has an effect.
        held_back: its batch waits for its turn, and nothing behind it is heard.
    """

    def __init__(self, shared: Shared) -> None:
        loop = asyncio.get_running_loop()
        self._watch = Watch(shared.limits, loop.time())
        super().__init__(loop, shared.budget.share(self), self._watch.progress)
        self.greeting: Greeting = Greeting(shared)
        self.log: Log | None = None
        self.requests: Requests | None = None
        self.sessions: Sessions | None = None
        self.leaving: bool = False
        self.held_back: bool = False
        self._shared = shared
        self.pace: Pace = shared.turns.pace()
        self.share.pace = self.pace
        self.hearing: Hearing = Hearing(self, self.pace, self._watch)
        self._told: State = []
        self._notices: Notices | None = None
        self._id_max = 0

    # ---- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        refusal = self._shared.roster.admit(self)
        if refusal is not None:
            self.leave(refusal, "stopping" if isinstance(refusal, Closed) else "connections")

    def connection_lost(self, error: Exception | None) -> None:
        self.leaving = True
        self._stop_work()
        self._shared.roster.forget(self)
        self.lost()
        # They hold the connection, and what came of frames: nothing of it shall wait for the garbage collector.
        self.requests = self.sessions = self._notices = None
        self.hearing.end()
        del self.hearing

    def eof_received(self) -> bool:
        return False  # the transport closes; what is unanswered is the client's to repeat

    def data_received(self, data: bytes) -> None:
        self._shared.counts.received_bytes += len(data)
        if not self.leaving:
            hearing = self.hearing
            hearing.receive(data)
            grant = self.greeting.grant
            if grant is not None and grant.limited and not self.leaving:
                self._shared.rates.hold_back(grant, self, hearing.frames, len(data))
            hearing.frames = 0

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.hearing.behind:
            self.hearing.go_on()

    def resume_reading(self, *why: str) -> None:
        self._watch.heard = True  # it could not be, before
        super().resume_reading(*why)

    # ---- frames in

    @property
    def hears(self) -> bool:
        """True if the next frame may be done now."""
        return self.stuck_since is None and not self.held_back and not self.greeting.opening

    @property
    def gathered(self) -> int:
        """The bytes that are held of batches that have not gone to the log yet."""
        return 0 if self.requests is None else self.requests.gathered

    def go_on(self) -> None:
        """Do what has come meanwhile."""
        if not self.leaving:
            self.hearing.go_on()

    @property
    def incomplete(self) -> bool:
        """True if it has sent a part of something that cannot be done before the rest is there."""
        return not self.held_back and (self.share.arrived > 0 or self.gathered > 0)

    @property
    def streaming(self) -> bool:
        """True if the log waits for more of a batch from here."""
        return self.requests is not None and self.requests.streaming

    def hold_back(self) -> None:
        """See Line."""
        self.held_back = True
        self.pause_reading(BATCH)

    def let_on(self) -> None:
        """See Line."""
        self.held_back = False
        self.resume_reading(BATCH)
        self.loop.call_soon(self.go_on)

    def do(self, frame: Frame) -> None:
        """Do what a frame says."""
        requests, sessions = self.requests, self.sessions
        if type(frame) is Append:
            assert requests is not None, "the reader lets nothing through before HELLO"
            requests.append(frame)
            return
        if isinstance(frame, Hello):
            self.greeting.greet(frame, self)
            return
        assert requests is not None, "the reader lets nothing through before HELLO"
        assert sessions is not None
        match frame:
            case Batch():
                requests.batch(frame)
            case Call():
                sessions.call(frame)
            case Open():
                sessions.open(frame)
            case Credit():
                sessions.credit(frame)
            case Cancel():
                requests.cancel(frame.id)
                sessions.cancel(frame.id)
            case Ping():
                self.send(Pong(frame.id, self.state))

    def claim(self, id: int) -> bool:
        """See Line. An id above all that came before is nobody's."""
        if id > self._id_max:
            self._id_max = id
            return True
        requests, sessions = self.requests, self.sessions
        return not ((requests is not None and id in requests) or (sessions is not None and id in sessions))

    def welcome(self, grant: Grant, log: Log) -> None:
        """Its HELLO was good, and this is its log."""
        hello, shared = self.greeting.hello, self._shared
        assert hello is not None
        self.log = log
        self.requests = Requests(self, shared, self.share, log, grant, producer=hello.producer)
        self.sessions = Sessions(self, shared, log, grant)
        self._notices = Notices(self, log, grant, self.sessions.tell_cut)
        self.hearing.welcome(shared.limits.frame_bytes)
        info = {
            "path": log.path,
            "namespace": self.greeting.namespace,
            "rights": sorted(grant.rights),
            "report": dataclasses.asdict(log.report),
            "server": __version__,
            "features": list(FEATURES),
        }
        self.send(Welcome(0, VERSION, shared.limits.told(log.config), self.state, info))

    # ---- frames out

    @property
    def state(self) -> State:
        """The log's state now, as every answer carries it."""
        assert self.log is not None
        self._told = state_of(self.log)
        return self._told

    def send(self, frame: Frame) -> None:
        """Let a frame leave, with more of the same group if there may be some."""
        if self._transport is None or self.leaving:
            return
        try:
            data = encode(frame)
        except ProtocolError as error:  # a value that msgpack does not know, or that is longer than any frame
            data = encode(error_frame(frame.id, error, self.state))
        if len(data) > BYTES_A_UNIT:
            self.pace.did(len(data) // BYTES_A_UNIT)
        more = self.hearing.more or (self.requests is not None and self.requests.unanswered > 0)
        self.write(data, more=more)

    def answer_error(self, id: int, error: WalError) -> None:
        """Answer a request or a stream with an error."""
        self._shared.counts.errors[code_of(error)] += 1
        self.send(error_frame(id, error, self.state))

    def fail(self, error: BaseException) -> None:
        """Tell the client what went wrong beside its requests, and end the connection."""
        logger.error("%s: unexpected error", self.name, exc_info=error)
        self.leave(WalError(f"the server has met an unexpected error: {type(error).__name__}"), "internal")

    # ---- ending

    def _stop_work(self) -> None:
        """Give up what is not accepted, close streams and consumers, and let the namespace go. Idempotent."""
        self.pace.over = True
        if self.requests is not None:
            self.requests.give_up()
        if self._notices is not None:
            self._notices.end()
        if self.sessions is not None:
            self.sessions.give_up()
        self.share.leave()
        self.greeting.end(self)

    def leave(self, error: WalError, reason: str) -> None:
        """Say why the connection ends, then end it. What was accepted stays; what was not is given up."""
        transport = self._transport
        if self.leaving or transport is None:
            return
        self._shared.counts.reject(self.name, error, reason)
        self.flush()
        self.leaving = True
        self._stop_work()
        words = (
            HTTP_REFUSAL if self.hearing.foreign == "HTTP" else encode(Goodbye(0, code_of(error), str(error)[:2000]))
        )
        transport.write(words)
        self.resume_reading(*self._paused)
        # A close with bytes unread would reset the connection, and the peer might never see the last words (RFC 1122,
        # 4.2.2.13): end our half only, throw away what still comes, and close when the peer does.
        if self._shared.roster.linger(self) and transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
        else:
            transport.close()
        self.loop.call_later(LINGER_SECONDS, transport.abort)

    def replace(self) -> None:
        """Make room for a newer connection of the same producer."""
        self.leave(InUse("another connection of this client has taken over"), "in_use")

    async def settled(self) -> None:
        """Wait until everything that came whole is answered."""
        while not self.leaving and self.hearing.behind and not self.held_back:  # noqa: ASYNC110  # each turn of the loop does a slice
            await asyncio.sleep(0)
        if self.requests is not None:
            await self.requests.settled()
        if self.sessions is not None:
            await self.sessions.settled()

    # ---- for the roster and the server's watch

    @property
    def opened_at(self) -> float:
        """When it came, in the loop's time."""
        return self._watch.opened_at

    @property
    def grant(self) -> Grant | None:
        """The rights of its token; None: no HELLO has come."""
        return self.greeting.grant

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return 0 if self.sessions is None else self.sessions.streams

    def look(self, now: float) -> None:
        """The server looks at its connections now and then: who is late, gone or stuck ends; the others hear news."""
        if self.leaving:
            return
        if self.takes_nothing(now, self._shared.limits.idle_seconds):
            error = WalTimeout("the client does not read what is sent to it")
            self._shared.counts.reject(self.name, error, "timeout")
            self.abort()  # it would not read last words either
            return
        greeted = self.log is not None or self.greeting.opening
        fault = self._watch.fault(now, self._shared.budget.tight_since, greeted=greeted, reads=self.reading)
        if fault is None and self.requests is not None and self.requests.late(now):
            fault = "its batch has not come whole in time, and others wait for its place"
        if fault is not None:
            self.leave(WalTimeout(fault), "timeout")
        elif self.log is not None:
            state, frame = self._shared.logs.news.of(self.log)
            if state != self._told:
                self._told = state
                self.write(frame, more=False)
