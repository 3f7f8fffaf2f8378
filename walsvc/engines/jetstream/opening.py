"""Opens a log that a NATS JetStream cluster keeps, as nats://h1:4222,h2:4222,h3:4222/stream names it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from walsvc.config import WalConfig
from walsvc.disk.base import TakenOver
from walsvc.disk.pool import imported
from walsvc.engines.jetstream.checks import ensure_stream, leader_of
from walsvc.engines.jetstream.connect import close_client, connect, connect_to
from walsvc.engines.jetstream.disk import JetStreamDisk
from walsvc.engines.jetstream.durability import check_durability
from walsvc.engines.jetstream.options import Address, JetStreamOptions, login_of
from walsvc.engines.jetstream.stream import Stream
from walsvc.engines.jetstream.takeover import full, survey, take_over
from walsvc.errors import SPACE_ERRNOS, DurabilityLost, Fenced, PathError
from walsvc.log.commit.catalog import EVERYTHING
from walsvc.log.commit.replicated import Answer, Replicated
from walsvc.scope import Dropped

if TYPE_CHECKING:
    from walsvc.log.commit.catalog import Catalog, Mark


async def open_log(address: Address, config: WalConfig, options: JetStreamOptions) -> Any:
    """Connect, take the stream over, recover, and give a Log (or a read-only one).

    Raises:
        PathError: no server answers, or the stream is no place for a log. Corruption: a message that opening needs is damaged
        or missing. Fenced: somebody else keeps taking the stream over. NoSpace: opening takes some messages, and there is no room for
        them.
    """
    from walsvc.opening import open_on, parts_of

    await imported(*parts_of(config))
    disk = await open_disk(address, options, read_only=config.read_only)
    try:
        log = await open_on(disk, disk.fit(config), Dropped.CLOSES)
    except PathError as error:
        if isinstance(error.__cause__, TakenOver):
            raise Fenced(
                "another writer has taken the stream over while it was opened", path=disk.path, errno=errno.ESTALE
            ) from error
        raise
    except DurabilityLost as error:  # of the mark that the log was opened
        if error.errno not in SPACE_ERRNOS:
            raise
        raise full(disk.path, address.stream, error.message) from error
    if not config.read_only:
        log.writer.core.attach(Majority(log.path, log.writer.core.catalog))
    return log


class Majority(Replicated):
    """The replica of a log that a majority of servers keeps: a durable record is replicated, so Quorum is Strict."""

    def __init__(self, path: str, catalog: Catalog) -> None:
        self._catalog = catalog
        super().__init__(path, 0)
        self.words: Callable[[], str] = lambda: "current"

    @property
    def lsn(self) -> int:
        """LSN up to which a majority has stored every record."""
        return self._catalog.durable_lsn

    @lsn.setter
    def lsn(self, _: int) -> None:
        """Nothing is set: it follows the log."""

    @property
    def mark(self) -> Mark:
        """Whatever is durable."""
        return EVERYTHING

    @mark.setter
    def mark(self, _: Mark) -> None:
        """Nothing is set: it follows the log."""

    def after(self, stored: Answer) -> Answer:
        """The append's own answer."""
        return stored


async def open_disk(address: Address, options: JetStreamOptions, *, read_only: bool) -> JetStreamDisk:
    """Connect, check the stream and its servers, and take it over (or only read what is there)."""
    login = login_of(address, options)
    client = await connect(address, options, **login)
    try:
        stream = Stream(client, address, options)
        info = await ensure_stream(stream, options, create=not read_only)
        durability = await check_durability(stream, info, address, options)
        if not read_only:
            former, client = client, await connect_to(leader_of(info), client, address, options, **login)
            stream.client = client
            if former is not client:
                await close_client(former)
        directory, publisher, last = await (survey(stream) if read_only else take_over(stream))
        first = info["state"]["first_seq"]
        return JetStreamDisk(stream, directory, publisher, words=durability.words, last=last, first=first)
    except BaseException:
        await close_client(client)
        raise
