"""`walsvc health`: does a server work? For a container's HEALTHCHECK, which then needs no curl."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, output, runner
from walsvc.errors import BadOption, Unreachable

ENVIRONMENT = "WALSVC_HTTP"
DEFAULT = "127.0.0.1:7421"
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what a server listens on, and how to reach it from beside it


def health(
    server: Annotated[
        str, typer.Argument(metavar="[HOST:PORT]", envvar=ENVIRONMENT, help="Its HTTP side, or a URL of it.")
    ] = DEFAULT,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it takes work, not only whether it lives.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.01, max=3600.0, help="Seconds to wait for the answer.")] = 3.0,
) -> None:
    """Ask a running `walsvc serve` whether it works.

    Asks its HTTP side for /livez, or with --ready for /readyz, prints the answer and ends with 0 or, where it is not well
    or does not answer, with 1.
    """
    path = "/readyz" if ready else "/livez"
    try:
        status, text = ask(server, path, timeout)
    except Unreachable as error:
        runner.report(error)
        raise typer.Exit(exits.OTHER) from None  # Docker knows 1 as "unhealthy", and no other code
    except BadOption as error:
        raise typer.Exit(runner.report(error)) from None
    if status == 200:
        output.echo(text)
        raise typer.Exit(exits.OK)
    output.complain(f"walsvc: {server} answers {status} to {path}: {text}")
    raise typer.Exit(exits.OTHER)


def ask(server: str, path: str, timeout: float) -> tuple[int, str]:
    """Status and text of the answer to GET `path`; Unreachable where there is none, BadOption for a bad address.

    Without a scheme it tries HTTP, then HTTPS. Goes there directly, whatever proxies the environment names. The certificate
    of this very machine is not verified: it names another host, and nothing secret is sent or believed.
    """
    import http.client
    import ssl

    from walsvc.service.wire.addresses import host_and_port, is_loopback

    scheme, _, rest = server.rpartition("://")
    host, port = host_and_port(rest.rstrip("/"))
    host = EVERYWHERE.get(host, host)
    context = ssl.create_default_context()
    if is_loopback(host):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    secure = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    bare = http.client.HTTPConnection(host, port, timeout=timeout)
    ways: dict[str, list[http.client.HTTPConnection]] = {"http": [bare], "https": [secure], "": [bare, secure]}
    if scheme not in ways:
        raise BadOption(f"{server!r} is no HTTP address", hint="HOST:PORT, http://HOST:PORT or https://HOST:PORT")
    for connection in ways[scheme]:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(4096).decode(errors="replace").strip()
        except (http.client.HTTPException, ConnectionResetError, ssl.SSLError) as error:
            strange = type(error).__name__
        except OSError as error:
            raise Unreachable(
                f"{server} does not answer: {error.strerror or error}",
                errno=error.errno,
                hint=f"does `walsvc serve` run, with --http? Elsewhere: {ENVIRONMENT}=HOST:PORT",
            ) from None
        finally:
            connection.close()
    raise Unreachable(f"{server} does not speak HTTP: {strange}", hint="ask its HTTP side")
