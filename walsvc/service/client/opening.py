"""Opens the log behind a server that unix://, wal:// and wals:// name."""

from __future__ import annotations

from walsvc.errors import closed_log
from walsvc.scope import Dropped
from walsvc.service.client.config import Address, ClientConfig
from walsvc.service.client.remote import RemoteLog
from walsvc.service.client.session import Session
from walsvc.service.client.trims import TOPICS_AT_OPENING


async def open_log(address: Address, config: ClientConfig) -> RemoteLog:
    """Connect, once, and look at the log.

    Raises:
        Unreachable, Denied, UnsupportedFormat, PathError, and whatever keeps the server from opening the log.
    """
    session = Session(address, config)
    await session.open()
    log = RemoteLog(session, Dropped.CLOSES)
    try:
        await log.refresh(TOPICS_AT_OPENING)
    except BaseException:
        await session.end(closed_log(log.path))
        raise
    return log
