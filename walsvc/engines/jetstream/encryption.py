"""TLS to NATS servers. Where it is asked for, a server that does not offer it hears no word of ours, and no login."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from nats.aio.client import Client
from nats.errors import Error

from walsvc.engines.jetstream.options import Address, JetStreamOptions
from walsvc.tls import Tls


class Unencrypted(Error):
    """A server offers no TLS, and only TLS will do."""


class Encryption(NamedTuple):
    """The encryption of the connections to the servers.

    Attributes:
        context: verifies them; None: the client's own, where a server wants TLS.
        server_name: that their certificates must have; None: their hosts.
        needed: whether a server without TLS is refused.
    """

    context: ssl.SSLContext | None
    server_name: str | None
    needed: bool


def encryption_of(address: Address, options: JetStreamOptions) -> Encryption:
    """Take TLS from the scheme, the options and the environment. Reads files; raises PathError, BadOption."""
    given = Tls.of(options)
    whole = given.or_environment()
    needed = address.scheme == "tls" or options.tls is not None or given != Tls()
    context = options.tls
    if context is None and (needed or whole != Tls()):
        context = whole.context()
    return Encryption(context, whole.server_name, needed)


def client_for(encryption: Encryption) -> Client:
    """A client that keeps to it."""
    return EncryptedClient() if encryption.needed else Client()


class EncryptedClient(Client):
    """Says nothing before the connection is encrypted, whatever the server says of itself."""

    def _connect_command(self) -> bytes:
        """The first message: called when TLS is up, or was not offered."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is None or writer.get_extra_info("ssl_object") is None:
            raise Unencrypted("the server offers no TLS")
        command: bytes = super()._connect_command()
        return command
