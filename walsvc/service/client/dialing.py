"""The way of a client to its server: the address, how it is protected, and what is said first."""

from __future__ import annotations

import asyncio
import os
import secrets

from walsvc.errors import Unreachable, WalError
from walsvc.service.client.config import Address, ClientConfig
from walsvc.service.client.connection import Owner, connect
from walsvc.service.wire.frames import MAGIC, VERSION, Hello


class Dialing:
    """Makes the connections of one session, under one producer's number.

    Raises:
        BadOption: a certificate or a key that cannot be used.
    """

    def __init__(self, address: Address, config: ClientConfig) -> None:
        self._address = address
        self._config = config
        self._context, self._server_name = address.context(config), address.server_name(config)
        self._producer = secrets.randbits(63) + 1

    async def connect(self, owner: Owner) -> None:
        """Make a connection, and wait until it is welcomed, at most `connect_seconds`. Raises as `connect`; Unreachable when that is
        over."""
        config, address = self._config, self._address
        hello = Hello(
            0,
            MAGIC,
            VERSION,
            VERSION,
            config.token(address),
            config.namespace,
            config.name or f"pid {os.getpid()}",
            self._producer,
            {},
        )
        try:
            async with asyncio.timeout(config.connect_seconds):
                await connect(owner, hello, address, self._context, self._server_name)
        except TimeoutError as error:
            if isinstance(error, WalError):
                raise
            message = f"the server did not answer within {config.connect_seconds} s"
            raise Unreachable(message, path=address.url) from None
