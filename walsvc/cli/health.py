"""`walsvc health`: does a server work? For a container's HEALTHCHECK, which then needs no curl."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, options, output, runner
from walsvc.errors import BadOption, Unreachable, WalError

ENVIRONMENT = "WALSVC_HTTP"
DEFAULT = "127.0.0.1:7421"
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what a server listens on, and how to reach it from beside it
EXAMPLE = "HOST:PORT, http://HOST:PORT or https://HOST:PORT"


@options.reaching("server")
def health(
    server: Annotated[
        str, typer.Argument(metavar="[HOST:PORT]", envvar=ENVIRONMENT, help="Its HTTP side, or a URL of it.")
    ] = DEFAULT,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it takes work, not only whether it lives.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.01, max=3600.0, help="Seconds to wait for the answer.")] = 3.0,
    as_json: options.AsJson = False,
) -> None:
    """Ask a running `walsvc serve` whether it works.

    Asks its HTTP side for /livez, or with --ready for /readyz, prints the answer and ends with 0 or, where it is not well
    or does not answer, with 1.
    """
    path = "/readyz" if ready else "/livez"
    try:
        status, text = ask(server, path, timeout)
    except Unreachable as error:
        if as_json:
            output.emit_json(
                {"server": server, "path": path, "ok": False, "status": None, "answer": [], "error": str(error)}
            )
        else:
            runner.report(error)
        raise typer.Exit(exits.OTHER) from None  # Docker knows 1 as "unhealthy", and no other code
    except WalError as error:
        raise typer.Exit(runner.report(error)) from None
    if as_json:
        told = {"server": server, "path": path, "ok": status == 200, "status": status, "answer": text.splitlines()}
        output.emit_json({**told, "error": None})
        raise typer.Exit(exits.OK if status == 200 else exits.OTHER)
    if status == 200:
        output.echo(text)
        raise typer.Exit(exits.OK)
    output.complain(f"walsvc: {server} answers {status} to {path}: {' '.join(text.splitlines())}")
    raise typer.Exit(exits.OTHER)


def ask(server: str, path: str, timeout: float) -> tuple[int, str]:
    """Status and text of the answer to GET `path`; Unreachable where there is none, BadOption for a bad address.

    Without a scheme it tries HTTP, then HTTPS. Goes there directly, whatever proxies the environment names. The certificate
    of this very machine is verified only where an authority is given: it names another host, and nothing secret is sent.
    """
    import http.client
    import socket
    import ssl

    from walsvc.targets import host_and_port, is_loopback, parse_url
    from walsvc.tls import Tls

    given, scheme, place = Tls(), "", server.rstrip("/")
    if "://" in server:
        parts = parse_url(server, EXAMPLE)
        given, scheme, place = Tls.given(dict(parts.options)), parts.scheme, parts.place
        if scheme not in ("http", "https") or parts.path not in ("", "/") or parts.login:
            raise BadOption(f"{server!r} is no HTTP address", hint=EXAMPLE)
    host, port = host_and_port(place)
    host = EVERYWHERE.get(host, host)
    tls = given.or_environment()
    context = tls.context()
    if is_loopback(host) and tls.ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    secure = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    bare = http.client.HTTPConnection(host, port, timeout=timeout)
    ways: dict[str, list[http.client.HTTPConnection]] = {"http": [bare], "https": [secure], "": [bare, secure]}
    for connection in ways[scheme]:
        try:
            if connection is secure and tls.server_name is not None:
                plain = socket.create_connection((host, port), timeout)
                connection.sock = context.wrap_socket(plain, server_hostname=tls.server_name)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(4096).decode(errors="replace").strip()
        except (http.client.HTTPException, ConnectionResetError, ssl.SSLError) as error:
            strange = getattr(error, "verify_message", "") or type(error).__name__
        except OSError as error:
            raise Unreachable(
                f"{server} does not answer: {error.strerror or error}",
                errno=error.errno,
                hint=f"does `walsvc serve` run, with --http? Elsewhere: {ENVIRONMENT}=HOST:PORT",
            ) from None
        finally:
            connection.close()
    raise Unreachable(
        f"{server} does not speak HTTP: {strange}", hint="ask its HTTP side; --ca FILE trusts an authority"
    )
