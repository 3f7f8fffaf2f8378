"""RemoteLog: what `walsvc.open` gives for unix://, wal:// and wals://, the same interface as Log."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

from walsvc.errors import BadOption, ProtocolError, WalError
from walsvc.log.commit.ack import all_done
from walsvc.log.commit.appending import AppendsTo, TakesRecords
from walsvc.model import Mode, RecoveryReport, Stats, Strict
from walsvc.scope import Dropped, Opened
from walsvc.service.client.closing import Closing
from walsvc.service.client.common import Common
from walsvc.service.client.config import ClientConfig
from walsvc.service.client.consumer import RemoteConsumer
from walsvc.service.client.pages import Pages
from walsvc.service.client.reading import RemoteReading
from walsvc.service.client.session import Session
from walsvc.service.client.streams import Follower, RemoteStream
from walsvc.service.client.topic import RemoteTopic
from walsvc.service.client.transaction import RemoteTransaction
from walsvc.service.client.trims import RemoteTrims
from walsvc.service.client.values import NOTHING_KNOWN, report_of, retention_of, stats_of
from walsvc.service.wire.frames import STATE_FIELDS, Purged
from walsvc.service.wire.wanted import Hidden
from walsvc.topics.delivery import Delivery
from walsvc.topics.names import ConsumerStatus, Start, check_name
from walsvc.topics.opening import OpensConsumers
from walsvc.topics.shared import SharedConsumer
from walsvc.topics.sharing import SharedOptions

T = TypeVar("T")


class RemoteLog(TakesRecords, RemoteReading, RemoteTrims, OpensConsumers[RemoteConsumer], Opened):
    """A log behind a server, in one event loop. Get it by `walsvc.open(url)`.

    What the embedded log answers from memory without waiting comes here from what the server said last: first_lsn, next_lsn,
    durable_lsn and the counters of stats() come with every answer; topics(), holds(), retention() and the rest of stats() are
    as of opening, of this client's own changes, and of the last `refresh()`.

    Attributes:
        path: the URL, without its query.
        config: the ClientConfig it was opened with.
        report: what recovery found when the server opened the log.
    """

    def __init__(self, session: Session, dropped: Dropped = Dropped.SILENT) -> None:
        super().__init__(session)
        RemoteTrims.__init__(self, Common(session))
        self._appends = self._common.appends
        self.path: str = session.address.url
        self.config: ClientConfig = session.config
        self.report: RecoveryReport = report_of(session.info["report"])
        self._stats = NOTHING_KNOWN
        self._closing = Closing(self._appends)
        session.cut, session.purged = weakly(self._cut), weakly(self._hide)  # the loop holds the session
        self._opens(dropped)
        vars(self)["append"] = self._appends.append  # in the method's place: the way to the frame is one call shorter

    # ---- appending

    def _place(self) -> tuple[AppendsTo, str | None]:
        return self._common, None

    def transaction(self, mode: Mode = Strict) -> RemoteTransaction:
        """Appends to several topics, acknowledgements and conditions that become durable together, or not at all; see
        Log.transaction."""
        return RemoteTransaction(self._common, mode)

    async def flush(self) -> int:
        """Wait until everything appended so far is durable, appends that wait for room included; returns durable_lsn."""
        await self._has_room()
        durable: int = await self._session.call("flush")
        return durable

    async def _has_room(self) -> None:
        """Wait until nothing that was appended so far waits for room."""
        self._appends.check()
        if (last := self._appends.queue.last) is not None:
            await all_done([last])

    async def wait_durable(self, lsn: int) -> int:
        """Wait until record `lsn` is durable; returns durable_lsn. BadOption: `lsn` was not given out yet."""
        durable: int = await self._session.call("wait_durable", lsn=lsn)
        return durable

    # ---- the connection

    @property
    def connected(self) -> bool:
        """True if there is a connection at this moment. Without one, calls wait for `reconnect_seconds` at most."""
        return self._session.connected

    def on_connection(self, callback: Callable[[WalError | None], None]) -> Callable[[], None]:
        """Call `callback` whenever the connection is lost, with the reason, and with None when there is one again; each is also a
        line in the logger "walsvc.client". Attempts in between are not told.

        Args:
            callback: a plain function; called on the log's loop, soon after the event. What it raises goes to the loop's
                exception handler.

        Returns:
            A function that ends it.
        """
        self._session.check_loop()
        if not callable(callback):
            raise BadOption(f"callback is {type(callback).__name__}", hint="give a plain function of one argument")
        return self._session.watchers.add(callback)

    # ---- range

    @property
    def first_lsn(self) -> int:
        """LSN of the first visible record, as last heard; next_lsn when there is none."""
        return self._session.state[0]

    @property
    def next_lsn(self) -> int:
        """LSN that the next accepted record gets, as last heard."""
        return self._session.state[1]

    @property
    def durable_lsn(self) -> int:
        """Every record up to this LSN is on stable storage."""
        return self._session.state[2]

    def stats(self) -> Stats:
        """A frozen picture of the server's log; `waiting` counts this client's appends that wait for room, too."""
        numbers: dict[str, Any] = dict(zip(STATE_FIELDS, self._session.state, strict=False))
        numbers["waiting"] = numbers.get("waiting", 0) + len(self._appends.queue.entries)
        return replace(self._stats, **numbers)

    async def refresh(self, topics_max: int | None = None) -> int:
        """Ask the server for what does not come with every answer: topics, holds, retention, all of stats(); returns next_lsn.

        Args:
            topics_max: leave the topics as they were known where there are more than these.
        """
        if "read" in self._session.info["rights"]:
            call = self._session.call
            stats, retention, holds = await asyncio.gather(call("stats"), call("retention"), call("holds"))
            self._stats = stats_of(stats)
            self._heard(retention_of(retention), holds)
            if topics_max is None or self._stats.topics <= topics_max:
                self._common.topics = dict.fromkeys(await call("topics"))
        return self.next_lsn

    # ---- topics and consumers

    def topic(self, name: str) -> RemoteTopic:
        """The topic `name`, 1 to 255 bytes in UTF-8."""
        return RemoteTopic(self, self._common, check_name("topic", name))

    def topics(self) -> list[str]:
        """Names of the topics, in the order in which they were made, as far as this client has heard of them: `refresh`."""
        return self._common.list_topics()

    async def has_topic(self, name: str) -> bool:
        """True if the topic `name` exists: asks the server, whatever this client has heard of."""
        found: bool = await self._session.call("has_topic", name=check_name("topic", name))
        return found

    async def delete_topic(self, name: str) -> None:
        """Delete a topic; see Log.delete_topic. Other clients' readers and consumers do not show what was sent ahead to them either.
        After a lost connection it is repeated, and a topic that was made under the name meanwhile stays."""
        check_name("topic", name)
        self._session.check(changes=True)
        number = await self._session.call("topic.number", topic=name)
        await self._session.call("delete_topic", topic=name, number=number)
        self._common.topics.pop(name, None)

    async def _open_consumer(self, name: str, delivery: Delivery | type[Delivery], start: Start) -> RemoteConsumer:
        return await self._common.open_consumer(None, name, delivery, start)

    async def _open_shared(
        self, name: str, delivery: Delivery | type[Delivery], start: Start, options: SharedOptions
    ) -> SharedConsumer:
        return await self._common.open_shared(None, name, delivery, start, options)

    async def consumers(self) -> list[ConsumerStatus]:
        """All consumers: those of the whole log, then those of each topic."""
        return await self._common.list_consumers()

    async def move_consumer(self, name: str, to: Start) -> None:
        """Set the position of a consumer of the whole log that is not open, durably."""
        await self._session.call("move_consumer", name=name, to=to)

    async def delete_consumer(self, name: str) -> None:
        """Forget a consumer of the whole log that is not open, durably."""
        await self._session.call("delete_consumer", name=name)

    def _hide(self, frame: Purged) -> None:
        """Records were purged, by whomever: what was sent ahead is looked through."""
        try:
            hidden = Hidden(frame)
        except BadOption as error:
            raise ProtocolError(f"the server names a purge that cannot be: {error.message}") from None
        readers: list[RemoteStream | Follower | Pages] = [*self._readers, *self._followers, *self._pages]
        for reader in (*self._common.consumers.values(), *readers):
            reader.purged(hidden)

    def _cut(self, lsn: int) -> None:
        for consumer in self._common.consumers.values():
            consumer.cut(lsn)
        readers: list[RemoteStream | Follower | Pages] = [*self._readers, *self._followers, *self._pages]
        for reader in readers:
            reader.cut(lsn + 1)

    # ---- what only the server has

    async def use_keys(self, keys: object) -> None:
        """Refused with BadOption: the keys are where the log is."""
        self._session.check(changes=True)
        raise BadOption(
            "the keys of a served log are the server's", path=self.path, hint="walsvc serve --key-file, and restart it"
        )

    @property
    def replicated_lsn(self) -> int | None:
        """Every record up to this LSN is stored by the server's replica, as of the last `refresh`; None: it has none."""
        return self._stats.replicated_lsn

    async def wait_replicated(self, lsn: int | None = None) -> int:
        """Wait until the server's replica has record `lsn`, or everything so far, and all changes; see Log.wait_replicated."""
        if lsn is None:
            await self._has_room()
        replicated: int = await self._session.call("wait_replicated", lsn=lsn)
        return replicated

    @property
    def writer(self) -> NoReturn:
        """Refused with BadOption: the writer is where the log is."""
        raise BadOption("the writer of a served log is the server's", path=self.path, hint="append is the log's, too")

    # ---- the end

    async def seal(self) -> None:
        """Make everything durable and let the log take no more appends, ever, from anybody; reading goes on. Idempotent."""
        await self._has_room()
        await self._session.call("seal")

    def _is_open(self) -> bool:
        return not self._closing.begun

    async def close(self, timeout: float | None = None) -> None:
        """Wait for the answers to what was appended before, make this client's Relaxed records durable, and end the connection.

        The server's log stays open. Appends that wait for room get it first. A batch whose asynchronous source has not ended is
        given up: its caller gets Closed, as does every later call. Idempotent.

        Args:
            timeout: seconds for all of it; None: as long as it takes (reconnect_seconds at most without a connection).

        Raises:
            WalTimeout: not done in time; the connection is ended all the same. Appends that still wait for room get Closed,
                whoever waits for an answer OutcomeUnknown.
        """
        await self._closing.close(timeout, self._end_readers)

    async def _end_readers(self) -> None:
        await self._common.return_ahead()
        await self._end_followers()

    def __repr__(self) -> str:
        return f"RemoteLog({self.path!r}, next_lsn={self.next_lsn}, durable_lsn={self.durable_lsn})"


def weakly(method: Callable[[T], None]) -> Callable[[T], None]:
    """Call a method as long as there is its object."""
    alive = weakref.WeakMethod(method)

    def call(argument: T) -> None:
        if (bound := alive()) is not None:
            bound(argument)

    return call
