"""The way from a URL to an open log behind a server: what `walsvc.open` calls for unix://, wal:// and wals://."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from walsvc.config import WalConfig
from walsvc.errors import BadOption, closed_log
from walsvc.service.client.config import Address, ClientConfig, parse
from walsvc.service.client.remote import TOPICS_AT_OPENING, RemoteLog
from walsvc.service.client.session import Session


def prepare(url: str, config: WalConfig | None, options: dict[str, Any]) -> Callable[[], Awaitable[RemoteLog]]:
    """Check a URL and the options for it, and return what connects. BadOption for what is wrong with them."""
    if config is not None:
        raise BadOption(
            "config holds the options of a log in a directory", hint="give single options, see walsvc.ClientConfig"
        )
    address, client_config = parse(url, options)
    return partial(open_remote, address, client_config)


async def open_remote(address: Address, config: ClientConfig) -> RemoteLog:
    """Connect, once, and look at the log.

    Raises:
        Unreachable, Denied, UnsupportedFormat, PathError, and whatever keeps the server from opening the log.
    """
    session = Session(address, config)
    await session.open()
    log = RemoteLog(session)
    try:
        await log.refresh(TOPICS_AT_OPENING)
    except BaseException:
        await session.end(closed_log(log.path))
        raise
    return log
