"""The HTTP side of a server: /livez, /readyz, /metrics, /status and, at /, the status page. It only looks.

It shares the server's event loop, so an answer from /livez also says that the loop turns, whatever the disk does. Whoever
does not ask is not heard: paths are a table, methods are GET and HEAD, no request has a body, connections are few and must
not stay silent.

/livez and /readyz need no token, as probes have none, and say no more than why. The rest names topics and consumers: beyond
loopback it asks for a token, as `Authorization: Bearer TOKEN` or, in a browser, as the password of any user. On loopback
without one, a page of another site could still make a browser ask under a name that the site points at 127.0.0.1 (DNS
rebinding); so the host asked for must be an address or `localhost` there.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from typing import Any, Protocol

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from walsvc import __version__
from walsvc.errors import BadOption, PathError, WalError
from walsvc.service.fronts.http.problems import HttpError, problem_of
from walsvc.service.fronts.http.request import token_of
from walsvc.service.fronts.http.routes import PREFIX, HttpFront
from walsvc.service.ops.few import SILENCE_SECONDS, FewConnections
from walsvc.service.ops.metrics import Families
from walsvc.service.ops.page import CONTENT_SECURITY_POLICY, PAGE
from walsvc.service.ops.space import SpaceWatch
from walsvc.service.ops.status import Observer
from walsvc.service.ops.status_json import encode_status
from walsvc.service.server.auth import Grant
from walsvc.service.server.entrance import Acceptor
from walsvc.service.server.listeners import Listener, listen_tcp
from walsvc.service.server.status import StatusSource, Trouble
from walsvc.service.wire.methods import ADMIN, READ
from walsvc.targets import is_loopback
from walsvc.visible import visible

HTTP_PORT = 7421
STRANGER = "ask for this page as localhost or by its address"
STOP_SECONDS = 1.0
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class HttpSide:
    """Serves a StatusSource over HTTP. `async with` it, or call start and stop.

    Args:
        source: the server to look at.
        host: address to listen on. One beyond loopback needs `tls` and `permits`, or `insecure`.
        port: 0 takes any that is free.
        tls: makes it HTTPS.
        permits: whether a token may look; takes any text, in constant time. None: nobody is asked for one.
        front: takes and gives records at /v1; None: the HTTP side only looks.
        connections: open at a time; None: few, since each costs a file descriptor that a client may need.
        space: gives the free-space alarm; None: nobody looks.
        insecure: allow listening beyond loopback without TLS or without a token.

    Raises:
        BadOption: a host beyond loopback without protection, or a bad port.
    """

    def __init__(
        self,
        source: StatusSource,
        host: str = "127.0.0.1",
        port: int = HTTP_PORT,
        *,
        tls: ssl.SSLContext | None = None,
        permits: Callable[[str], bool] | None = None,
        front: HttpFront | None = None,
        connections: int | None = None,
        space: SpaceWatch | None = None,
        insecure: bool = False,
    ) -> None:
        self._local = is_loopback(host)
        if not self._local and not insecure and (tls is None or permits is None):
            raise BadOption(
                f"the HTTP side would listen on {host} without {'TLS' if tls is None else 'a token'}",
                hint="listen on 127.0.0.1, or give a certificate and tokens, or --insecure where the network is trusted",
            )
        self._host, self._port = host, port
        self._tls, self._permits = tls, permits
        self._observer = Observer(source, space)
        self._source = source
        self._runner: web.ServerRunner | None = None
        self._listener: Listener | None = None
        self._server: FewConnections | None = None
        self._front = front
        self._connections = connections
        self._routes: dict[str, Callable[[web.BaseRequest], Awaitable[web.Response]]] = {
            "/": self._page,
            "/healthz": self._livez,
            "/livez": self._livez,
            "/metrics": self._metrics,
            "/readyz": self._readyz,
            "/status": self._status,
        }

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """Its address, for people."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self._port}/"

    async def start(self) -> None:
        """Listen. Raises PathError with the errno where the address cannot be had."""
        self._server = FewConnections(
            self._answer,
            connections=self._connections,
            access_log=None,
            handler_cancellation=True,
            auto_decompress=False,  # the front unpacks, within its limits
        )
        runner = web.ServerRunner(self._server, shutdown_timeout=STOP_SECONDS)
        await runner.setup()
        try:
            self._listener = await listen_tcp(self._host, self._port, self._accept, "http")
        except PathError as error:
            await runner.cleanup()
            raise PathError(
                f"the HTTP side {error.message}",
                errno=error.errno,
                hint="choose another address with --http HOST:PORT, or --http off",
            ) from error
        self._runner, self._port = runner, self._listener.port
        if self._front is not None:
            await self._front.start()

    def _accept(self, listening: socket.socket) -> Acceptor:
        assert self._server is not None
        tls = None if self._tls is None else self._current_tls
        return Acceptor(listening, self._server, tls, self._server, SILENCE_SECONDS)

    def _current_tls(self) -> ssl.SSLContext:
        assert self._tls is not None, "asked only where there is one"
        return self._tls

    def renew(self, tls: ssl.SSLContext) -> None:
        """Use another certificate for later connections; nothing changes where it speaks plain HTTP."""
        if self._tls is not None:
            self._tls = tls

    async def stop(self) -> None:
        """Stop listening and close all connections; idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None and self._listener is not None:
            await self._listener.close()
            await self.end_front(0.0)
            await runner.cleanup()
        await self._observer.close()

    async def end_front(self, seconds: float) -> None:
        """End the front, before the logs are closed: take and give no more records, and answer appends under way, for at most `seconds`."""
        if self._front is not None:
            await self._front.stop(seconds)

    def troubles(self) -> Iterator[Trouble]:
        """The trouble of the HTTP side, if it has ended by itself; see walsvc.service.server.troubles."""
        if self._listener is not None and (cause := self._listener.broken) is not None:
            error = WalError(f"accept() failed: {cause.strerror}", path=self.url, hint="restart the server")
            yield Trouble("http", "", "the HTTP side has ended", error)

    async def __aenter__(self) -> HttpSide:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # ---- answering

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        server, protocol = self._server, request.protocol
        assert server is not None
        if self._front is not None and request.rel_url.raw_path.startswith(PREFIX):
            server.begin(protocol)
            try:
                if self._stranger(request):
                    return problem_of(HttpError(421, STRANGER), request.rel_url.raw_path)
                return await self._front.answer(request)
            finally:
                server.end(protocol)
        server.heard.add(protocol)
        route = self._routes.get(request.path)
        if route is None:
            records = "with --http-api also /v1/topics/TOPIC" if self._front is None else "/v1/topics/TOPIC"
            response = plain(404, f"there is /, /status, /metrics, /livez (or /healthz) and /readyz; {records}")
        elif request.method not in ("GET", "HEAD"):
            response = plain(405, "only GET and HEAD")
            response.headers["Allow"] = "GET, HEAD"
        else:
            response = self._refusal(request) or await route(request)
        return with_headers(response)

    def _stranger(self, request: web.BaseRequest) -> bool:
        """True if a page of another site has made the request, by a name that it points at this machine."""
        return self._permits is None and self._local and not is_local_name(request.host)

    def _refusal(self, request: web.BaseRequest) -> web.Response | None:
        """Why this request is not answered; None: it is."""
        if request.path in ("/livez", "/healthz", "/readyz"):
            return None
        if self._permits is not None:
            if self._permits(token_of(request)):
                return None
            response = plain(401, "a token is needed: Authorization: Bearer TOKEN, or as the password of any user")
            response.headers["WWW-Authenticate"] = 'Basic realm="walsvc", charset="UTF-8"'
            return response
        return plain(421, STRANGER) if self._stranger(request) else None

    async def _livez(self, _request: web.BaseRequest) -> web.Response:
        server = self._source.status()
        return plain(200, "live") if server.live else plain(503, f"not live: {server.reason}")

    async def _readyz(self, _request: web.BaseRequest) -> web.Response:
        reasons = self._observer.reasons()
        warnings = [f"warning: {line}" for line in self._observer.warnings()]
        return plain(503, "not ready", *reasons, *warnings) if reasons else plain(200, "ready", *warnings)

    async def _status(self, _request: web.BaseRequest) -> web.Response:
        return web.Response(body=encode_status(await self._observer.snapshot()), content_type="application/json")

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        counted = {} if self._front is None else self._front.answered
        text: Any = Families(await self._observer.snapshot(), __version__, counted)
        return web.Response(body=encode(text), headers={"Content-Type": content_type})

    async def _page(self, _request: web.BaseRequest) -> web.Response:
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return web.Response(body=PAGE, content_type="text/html", charset="utf-8", headers=headers)


def with_headers(response: web.Response) -> web.Response:
    """Add the headers that every answer for people has."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def plain(status: int, *lines: str) -> web.Response:
    """Lines of text, fit for a terminal whatever names are in them."""
    body = "".join(f"{visible(line)}\n" for line in lines).encode()
    return web.Response(status=status, body=body, content_type="text/plain", charset="utf-8")


class Grants(Protocol):
    """Tokens, or a server, whose tokens may change."""

    def grant(self, token: str | None) -> Grant | None: ...


def may_look(grants: Grants) -> Callable[[str], bool]:
    """True for a token that reads, or administers, every namespace, since all of them are shown. For `permits`."""

    def permits(token: str) -> bool:
        grant = grants.grant(token)
        return grant is not None and not grant.rights.isdisjoint((READ, ADMIN)) and grant.namespaces is None

    return permits


@lru_cache(64)
def is_local_name(host: str) -> bool:
    """True if a Host header is an address, `localhost`, or absent: a name of somebody else's is neither."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    if name.lower() in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
