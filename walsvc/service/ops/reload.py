"""Certificates, client CAs and tokens are taken anew while the server runs: on SIGHUP, and when one of their files has changed."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import TYPE_CHECKING

from walsvc.disk.pool import in_thread
from walsvc.errors import WalError
from walsvc.service.ops.settings import Settings
from walsvc.service.server.auth import Tokens
from walsvc.service.server.server import Server

if TYPE_CHECKING:
    from walsvc.service.ops.http import HttpSide

LOOK_SECONDS = 5.0  # between two looks at the files
logger: logging.Logger = logging.getLogger("walsvc.service")
Stamp = tuple[int, int, int] | None


class Reloader:
    """Reads the files again, and gives what is in them to whoever connects from then on. Files that are not good, or that fit
    each other no more, change nothing: what was taken before stays."""

    def __init__(self, settings: Settings, server: Server, http: HttpSide | None) -> None:
        self._settings = settings
        self._server = server
        self._http = http
        self._stamps = self._look()

    async def reload(self) -> None:
        """Read all of the files again. Never raises: the server goes on."""
        try:
            tls, tokens, http_tls = await in_thread(self._load)
            self._server.renew(tls=tls, tokens=tokens)
        except WalError as error:
            logger.error("certificates and tokens were not taken anew: %s", error)
            return
        if self._http is not None and http_tls is not None:
            self._http.renew(http_tls)
        names = [*(["certificates"] if tls else []), *(["tokens"] if tokens else [])]
        logger.info(
            "taken anew: %s", " and ".join(names) or "nothing, since the server has neither certificate nor tokens"
        )

    async def watch(self) -> None:
        """Reload whenever a file has changed, until this is cancelled."""
        while self._stamps:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                stamps = await in_thread(self._look)
            except WalError as error:
                logger.warning("the files of certificates and tokens were not looked at: %s", error)
                continue
            if stamps != self._stamps:
                self._stamps = stamps
                await self.reload()

    def _load(self) -> tuple[ssl.SSLContext | None, Tokens | None, ssl.SSLContext | None]:
        settings = self._settings
        return settings.load_tls(), settings.load_tokens(), settings.load_http_tls()

    def _look(self) -> dict[str, Stamp]:
        main = self._settings.main
        files = (main.tls_cert, main.tls_key, main.tls_client_ca, main.token_file)
        return {file: stamp_of(file) for file in files if file is not None}


def stamp_of(file: str) -> Stamp:
    """A stamp that changes when the file does; None where the file cannot be looked at."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
