"""One connection of a server: frames in, answers out. docs/PROTOCOL.md has its states as a table.

APPEND is the hot path: a frame becomes one entry of the log, its future gets a callback, and no task is made. What a group
commit answers is collected in the turn of the loop in which it comes, and leaves in one write.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from walsvc.api import Log
from walsvc.errors import (
    Backpressure,
    BadOption,
    Closed,
    Denied,
    InUse,
    ProtocolError,
    UnsupportedFormat,
    WalError,
    WalTimeout,
)
from walsvc.service.server.auth import MAKES, Grant
from walsvc.service.server.duplex import Duplex
from walsvc.service.server.limits import Limits
from walsvc.service.server.progress import Progress
from walsvc.service.server.requests import Requests
from walsvc.service.server.sessions import Sessions
from walsvc.service.server.state import state_of
from walsvc.service.wire.codes import code_of, error_frame
from walsvc.service.wire.frames import (
    FEATURES,
    FIRST,
    FROM_CLIENT,
    HELLO_BYTES_MAX,
    MAGIC,
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
    Purged,
    State,
    StateFrame,
    Welcome,
)
from walsvc.service.wire.methods import CONSUME, READ
from walsvc.service.wire.protocol import FrameReader, encode
from walsvc.tasks import begin_task

if TYPE_CHECKING:
    from walsvc.service.server.server import Server

logger: logging.Logger = logging.getLogger("walsvc.service")
LINGER_SECONDS = 2.0  # how long the peer has to read why the connection ends; what it still sends is thrown away
FRAMES_A_TURN = 256  # of one connection, and
RECORDS_A_TURN = 8192  # so many records in them: then others have their turn
HTTP_REFUSAL = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nThis is a walsvc log, not HTTP.\n"


class Connection(Duplex):
    """A client, from its first byte to the last."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.loop)
        self.server = server
        self.limits: Limits = server.limits
        self.name: str = "?"
        self.grant: Grant | None = None
        self.producer: int = 0
        self.producer_key: tuple[str, int] | None = None  # under which the server knows it
        self.namespace: str | None = None  # once its log is taken
        self.log: Log | None = None
        self.requests: Requests | None = None
        self.sessions: Sessions | None = None
        self._reader = FrameReader(FIRST, HELLO_BYTES_MAX)
        self._incoming_bytes = 0  # that have come of a frame on its way, as charged to the server
        self._progress = Progress(server.limits.idle_seconds)
        self._holding = False  # something of a frame or a batch that is not complete
        self._sliced = False  # more frames are here than one turn of the loop takes
        self._heard = True  # since the server looked last
        self.opened_at: float = server.loop.time()
        self._silent_since = self.opened_at
        self._welcoming: asyncio.Task[None] | None = None
        self._leaving = False
        self._told: State = []

    # ---- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.name = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        refusal = self.server.roster.admit(self)
        if refusal is not None:
            self.leave(refusal, "stopping" if isinstance(refusal, Closed) else "connections")

    def connection_lost(self, error: Exception | None) -> None:
        self._leaving = True
        self._stop_work()
        self.server.roster.forget(self)
        self.lost()

    def eof_received(self) -> bool:
        return False  # the transport closes; what is unanswered is the client's to repeat

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self.server.received_bytes += len(data)
        if not self._leaving:
            self._reader.receive(data)
            self._take_frames()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._sliced:
            self.loop.call_soon(self._go_on)

    def pause_reading(self, why: str) -> None:
        if self.reading:
            self._progress.paused(self.loop.time())
        super().pause_reading(why)

    def resume_reading(self, *why: str) -> None:
        self._heard = True  # it could not be, before
        before = self.reading
        super().resume_reading(*why)
        if self.reading and not before:
            self._progress.resumed(self.loop.time())

    # ---- frames in

    def _take_frames(self) -> None:
        """Do what the complete frames say, a slice in each turn of the loop; the first that is wrong ends the connection."""
        try:
            more = self._take_slice()
        except WalError as error:
            reason = "protocol"
            if isinstance(error, Backpressure):
                reason = "credit"
            elif self._reader.over_limit:
                reason = "frame"
            self.leave(error, reason)
            return
        if more != self._sliced:
            self._sliced = more
            if more:
                self.pause_reading("slice")
            else:
                self.resume_reading("slice")
        if more and not self.stuck:
            self.loop.call_soon(self._go_on)
        if (incoming := self._reader.incomplete_bytes) or self._incoming_bytes:
            self._charge(incoming)
        gathered = 0 if self.requests is None else self.requests.gathered
        if incoming or gathered or self._holding:
            self._holding = bool(incoming or gathered)
            self._progress.holds(incoming, gathered, self._reader.expected_bytes, self.loop.time())

    def _take_slice(self) -> bool:
        """Do what the next frames say; True: there may be more of them."""
        frames = records = 0
        while not self._leaving and self._welcoming is None:
            if frames >= FRAMES_A_TURN or records >= RECORDS_A_TURN or self.stuck:
                return True
            frame = self._reader.next_frame()
            if frame is None:
                break
            frames += 1
            if type(frame) is Append:
                assert self.requests is not None, "the reader lets nothing through before HELLO"
                records += len(frame.payloads)
                self.requests.append(frame)
            else:
                records += len(frame.payloads) if type(frame) is Batch else 0
                self._dispatch(frame)
        return False

    def _go_on(self) -> None:
        if self._sliced and self._transport is not None and not self._leaving:
            self._take_frames()

    def _charge(self, length: int) -> None:
        """Charge what has come of a frame on its way: nothing is held for what is only announced."""
        pressure = self.server.pressure
        pressure.charge(length - self._incoming_bytes)
        self._incoming_bytes = length
        self.server.relieve(self)

    @property
    def incomplete(self) -> bool:
        """Whether it has sent a part of something that cannot be done before the rest is there."""
        return self._incoming_bytes > 0 or (self.requests is not None and self.requests.gathering)

    @property
    def streaming(self) -> bool:
        """Whether the log waits for more of a batch from here."""
        return self.requests is not None and self.requests.streaming

    def _dispatch(self, frame: Frame) -> None:
        requests, sessions = self.requests, self.sessions
        if isinstance(frame, Hello):
            self._hello(frame)
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

    def has_session(self, id: int) -> bool:
        """Whether a call or a stream has this id."""
        return self.sessions is not None and id in self.sessions

    # ---- opening

    def _hello(self, hello: Hello) -> None:
        server = self.server
        if hello.magic != MAGIC:
            raise ProtocolError("HELLO does not begin with the protocol's name", expected=MAGIC)
        if not hello.version_min <= VERSION <= hello.version_max:
            error = UnsupportedFormat(
                "the client speaks other versions of the protocol",
                expected=f"version {VERSION}",
                actual=f"{hello.version_min} to {hello.version_max}",
                hint="use a client of this server's version",
            )
            self.leave(error, "version")
            return
        grant, namespace = server.grant(hello.token), hello.namespace or ""
        if grant is None or not grant.opens(namespace):
            if grant is None:
                denied = Denied("the token is not known", hint="see WALSVC_TOKEN or token_file")
            else:
                names = ", ".join(sorted(map(repr, grant.namespaces or ())))
                hint = f"it opens {names or 'none'}; see its namespaces in the server's token file"
                denied = Denied(f"token {grant.name!r} does not open this namespace", hint=hint)
            self.leave(denied, "token")
            return
        self.grant, self.producer = grant, hello.producer
        self.name = f"{grant.name} {hello.client[:64]!r} at {self.name}"
        try:
            server.logs_by_name.check(namespace)
            server.roster.take_over(self, namespace)
        except WalError as error:
            self.leave(error, "namespace" if isinstance(error, BadOption) else "in_use")
            return
        if (log := server.logs_by_name.take_open(namespace)) is not None:
            self._welcome(namespace, log)
        else:
            self._welcoming = begin_task(self._open_log(namespace))
            self.pause_reading("opening")

    async def _open_log(self, namespace: str) -> None:
        try:
            assert self.grant is not None, "HELLO was good"
            log = await self.server.logs_by_name.take(namespace, make=not MAKES.isdisjoint(self.grant.rights))
        except (WalError, OSError) as error:
            trouble = error if isinstance(error, WalError) else WalError(f"the log cannot be opened: {error.strerror}")
            self._welcoming = None
            self.leave(trouble, "namespace")
            return
        self._welcoming = None
        if self._leaving:
            self.server.logs_by_name.leave(namespace)
            return
        self._welcome(namespace, log)
        self.resume_reading("opening")
        self._take_frames()

    def _welcome(self, namespace: str, log: Log) -> None:
        assert self.grant is not None
        self.namespace, self.log = namespace, log
        self.requests = Requests(self, log, self.grant, self.producer)
        self.sessions = Sessions(self, log, self.grant)
        log.segments.cuts.listeners.add(self._tell_cut)
        self._reader.table = FROM_CLIENT
        self._reader.body_bytes_max = self.limits.frame_bytes
        info = {
            "path": log.path,
            "namespace": namespace,
            "rights": sorted(self.grant.rights),
            "report": dataclasses.asdict(log.report),
            "server": self.server.version,
            "features": list(FEATURES),
        }
        self.send(Welcome(0, VERSION, self.limits.told(log.config), self.state, info))

    # ---- frames out

    @property
    def state(self) -> State:
        """The log's state now, as every answer carries it."""
        assert self.log is not None
        self._told = state_of(self.log)
        return self._told

    def send(self, frame: Frame) -> None:
        """Let a frame leave, with more of the same group if there may be some."""
        if self._transport is None or self._leaving:
            return
        try:
            data = encode(frame)
        except ProtocolError as error:  # a value that msgpack does not know, or that is longer than any frame
            data = encode(error_frame(frame.id, error, self.state))
        self.write(data, more=self.requests is not None and self.requests.unanswered > 0)

    def answer_error(self, id: int, error: WalError) -> None:
        """Answer a request or a stream with an error."""
        self.server.count_error(code_of(error))
        self.send(error_frame(id, error, self.state))

    def tell_purged(self, topic: str | None, labels: dict[str, Any], before: int) -> None:
        """Records of the log were purged: whoever reads it may have been sent some of them ahead."""
        for each in self.server.roster:
            if each.log is self.log and each.grant is not None and not each.grant.rights.isdisjoint((READ, CONSUME)):
                each.send(Purged(0, topic, labels, before, each.state))

    def _tell_cut(self) -> None:
        """The log's end was taken back: the client may have been sent what is gone, also by streams that have ended."""
        assert self.sessions is not None
        self.sessions.tell_cut()
        self.send(StateFrame(0, self.state))

    def fail(self, error: BaseException) -> None:
        """Something went wrong that is nobody's request: say so, and end the connection."""
        logger.error("%s: unexpected error", self.name, exc_info=error)
        self.leave(WalError(f"the server has met an unexpected error: {type(error).__name__}"), "internal")

    # ---- ending

    def _stop_work(self) -> None:
        """Give up what is not accepted, close streams and consumers, and let the namespace go."""
        if self.requests is not None:
            self.requests.give_up()
        if self.sessions is not None and self.log is not None:
            self.log.segments.cuts.listeners.discard(self._tell_cut)
            self.sessions.give_up()
        if self._welcoming is not None:
            self._welcoming.cancel()
        if self._incoming_bytes:
            self.server.pressure.charge(-self._incoming_bytes)
            self._incoming_bytes = 0
        self.server.release(self)

    def leave(self, error: WalError, reason: str) -> None:
        """Say why the connection ends, then end it. What was accepted stays; what was not is given up."""
        transport = self._transport
        if self._leaving or transport is None:
            return
        self.server.reject(self.name, error, reason)
        self.flush()
        self._leaving = True
        self._stop_work()
        words = (
            HTTP_REFUSAL if self._reader.foreign == "HTTP" else encode(Goodbye(0, code_of(error), str(error)[:2000]))
        )
        transport.write(words)
        self.resume_reading(*self._paused)
        # A close with bytes unread would reset the connection, and the peer might never see the last words (RFC 1122,
        # 4.2.2.13): end our half only, throw away what still comes, and close when the peer does.
        if self.server.roster.linger(self) and transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
        else:
            transport.close()
        self.loop.call_later(LINGER_SECONDS, transport.abort)

    def replace(self) -> None:
        """Make room for a newer connection of the same producer."""
        self.leave(InUse("another connection of this client has taken over"), "in_use")

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    async def settled(self) -> None:
        """Wait until everything that came whole is answered."""
        while self._sliced and not self._leaving:  # noqa: ASYNC110  # each turn of the loop does a slice
            await asyncio.sleep(0)
        if self.requests is not None:
            await self.requests.settled()
        if self.sessions is not None:
            await self.sessions.settled()

    def look(self, now: float) -> None:
        """The server looks at its connections now and then: who is late, gone or stuck ends; the others hear news."""
        if self._leaving:
            return
        limits = self.limits
        if self._heard or not self.reading:
            self._heard, self._silent_since = False, now
        if self.log is None:
            if self._welcoming is None and now - self.opened_at > limits.handshake_seconds:
                self.leave(WalTimeout(f"no complete HELLO came within {limits.handshake_seconds:g} s"), "timeout")
        elif self.stuck_since is not None and now - self.stuck_since > limits.idle_seconds:
            self.server.reject(self.name, WalTimeout("the client does not read what is sent to it"), "timeout")
            self.abort()  # it would not read last words either
        elif (fault := self._progress.fault(now, self.server.pressure.tight_since)) is not None:
            self.leave(WalTimeout(fault), "timeout")
        elif now - self._silent_since > limits.idle_seconds:
            words = f"nothing was heard of the client for {limits.idle_seconds:g} s, not even PING"
            self.leave(WalTimeout(words), "timeout")
        else:
            before = self._told
            if before != self.state:
                self.send(StateFrame(0, self._told))
