"""TLS for clients: which authority to trust, and which certificate to show. The same four options with every URL.

    ca           PEM file of the authorities to trust; without it those of the system
    cert, key    PEM files of the client's own certificate and its key; the key may stand in the file of the certificate
    server_name  the name that the server's certificate must have; without it the URL's host

They are keywords of `walsvc.open`, options in a URL (`wals://host?ca=/etc/ca.pem`), options of each verb that takes a URL
(`--ca FILE`), and WALSVC_CA, WALSVC_CERT, WALSVC_KEY and WALSVC_SERVER_NAME in the environment, which count where nothing else
is said.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from walsvc.errors import BadOption, PathError, WalError
from walsvc.options import file_of, unknown_option
from walsvc.targets import is_host

NAMES = ("ca", "cert", "key", "server_name")
PREFIX = "WALSVC_"
HINT = "ca, cert and key are PEM files"


class Tls(NamedTuple):
    """The four options. None: not given."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None

    @classmethod
    def of(cls, options: Any) -> Tls:
        """The TLS options among the attributes of `options`. Raises BadOption."""
        return cls.given({name: getattr(options, name) for name in NAMES})

    @classmethod
    def given(cls, options: Mapping[str, Any]) -> Tls:
        """The TLS options of a map. BadOption for another name, and for a value that is no path or no name of a host."""
        if unknown := options.keys() - set(NAMES):
            raise unknown_option(min(unknown), NAMES)
        named = {name: value for name, value in options.items() if value is not None}
        for name, value in named.items():
            if name != "server_name":
                named[name] = file_of(name, value)
            elif not (isinstance(value, str) and is_host(value)):
                raise BadOption(f"server_name={value!r} is no name of a host")
        if "key" in named and "cert" not in named:
            raise BadOption("key is given without cert", hint="give the client's certificate, too")
        return cls(**named)

    def or_environment(self) -> Tls:
        """The same, completed by WALSVC_CA and its like; cert and key are taken from one place. Raises BadOption."""
        found = {name: os.environ.get(PREFIX + name.upper()) or None for name in NAMES}
        kept = {name: value for name, value in self._asdict().items() if value is not None}
        if "cert" in kept:
            found["key"] = None
        return Tls.given({**found, **kept})

    def context(self) -> ssl.SSLContext:
        """The SSL context that verifies the server, and shows the client's certificate. Reads files; PathError names a wrong one."""
        if self.ca is None:
            context = ssl.create_default_context()
        else:
            with loading("ca", self.ca, PathError):
                context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            load_identity(context, self.cert, self.key, PathError)
        return context


def load_identity(
    context: ssl.SSLContext, cert: str, key: str | None, unfit: type[BadOption] | type[PathError]
) -> None:
    """Let `context` show a certificate. Raises PathError for a file that cannot be read, `unfit` for one that is not what it
    should be."""
    cert, key = file_of("cert", cert), None if key is None else file_of("key", key)
    if key is not None:
        with loading("key", key, unfit), open(key, "rb"):
            pass  # OpenSSL does not say which of the two files it could not read
    with loading("cert" if key is None else "cert, or its key,", cert, unfit):
        context.load_cert_chain(cert, key, password=lambda: "")  # without asking on a terminal


@contextmanager
def loading(name: str, path: str, unfit: type[BadOption] | type[PathError]) -> Iterator[None]:
    """The reason that OpenSSL gives for refusing a file, in our words."""
    try:
        yield
    except WalError:
        raise
    except ssl.SSLError as error:
        reason = (error.reason or "it holds nothing of the kind").replace("_", " ").lower()
        raise unfit(f"{name} is not good: {reason}", path=path, hint=HINT) from None
    except OSError as error:
        raise PathError(
            f"{name} cannot be read: {error.strerror or error}", errno=error.errno, path=path, hint=HINT
        ) from None
