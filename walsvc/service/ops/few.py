"""aiohttp's server, bounded in connections and silence."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from walsvc.service.server.entrance import Entrance

CONNECTIONS_MAX = 128  # a monitoring system, a few people; each costs a file descriptor that a client may need
SILENCE_SECONDS = 30.0  # a connection that asks nothing for so long is cut off


def is_ours(record: logging.LogRecord) -> bool:
    """True if a log line tells of a fault of this server. What a client has sent that is no HTTP is left out: it may hold a token, and
    anybody could fill the log with it."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


logger: logging.Logger = logging.getLogger("walsvc.http")
logger.addFilter(is_ours)


class FewConnections(web.Server):
    """aiohttp's server, bounded. It has no limit to the number of connections of its own, and none to the time that one may
    take to ask, or to read an answer; so whoever has asked nothing between two looks is cut off."""

    def __init__(self, *args: Any, connections: int | None = None, **options: Any) -> None:
        super().__init__(*args, logger=logger, **options)
        self._connections_max = CONNECTIONS_MAX if connections is None else connections
        self.heard: set[asyncio.BaseProtocol] = set()  # connections that have asked something since the last look
        self._at_work: set[asyncio.BaseProtocol] = set()
        self._entering: set[Entrance] = set()
        self._looks: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}

    def enter(self, entrance: Entrance) -> bool:
        """Count a TLS handshake that begins; False: there is no room for it."""
        if len(self.connections) + len(self._entering) >= self._connections_max:
            return False
        self._entering.add(entrance)
        return True

    def entered(self, entrance: Entrance, *, secure: bool) -> None:
        """Stop counting a handshake that has ended."""
        self._entering.discard(entrance)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > self._connections_max:
            # not at once: aiohttp is still setting the connection up
            asyncio.get_running_loop().call_soon(transport.abort)
        else:
            self._look_later(handler, transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.heard.discard(handler)
        if (look := self._looks.pop(handler, None)) is not None:
            look.cancel()

    def _look_later(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        self._looks[handler] = loop.call_later(SILENCE_SECONDS, self.look, handler, transport)

    def begin(self, handler: asyncio.BaseProtocol) -> None:
        """Do not cut a connection off before `end`: the answer to its request has its own bound of time."""
        self._at_work.add(handler)

    def end(self, handler: asyncio.BaseProtocol) -> None:
        """The request is answered, or its client has gone."""
        self._at_work.discard(handler)
        if handler in self._looks:  # else its client has gone meanwhile, and nothing would ever take it out again
            self.heard.add(handler)

    def look(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Cut `transport` off if nothing was asked on it since the last look."""
        if handler in self.heard or handler in self._at_work:
            self.heard.discard(handler)
            self._look_later(handler, transport)
        else:
            transport.abort()
