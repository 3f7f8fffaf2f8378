"""`walsvc serve`: put a log behind a socket, so that many processes share one group commit."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from walsvc.cli import exits, options, output, runner


@options.reaching("replicate")
def serve(
    *,
    data: Annotated[str | None, typer.Option(metavar="PATH", help="The log's directory.")] = None,
    unix: Annotated[str | None, typer.Option(metavar="PATH", help="Listen on this Unix socket, mode 0600.")] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Listen for TCP.")] = None,
    tls_cert: Annotated[
        str | None, typer.Option(metavar="PATH", help="PEM certificate chain for TCP and HTTP.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="PATH", help="Its key, unless it is in the same file.")] = None,
    tls_client_ca: Annotated[
        str | None, typer.Option(metavar="PATH", help="Clients must show a certificate signed by one of these.")
    ] = None,
    token_file: Annotated[str | None, typer.Option(metavar="PATH", help="TOML file with [[token]] tables.")] = None,
    key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The keys of an encrypted log: lines of id and base64, mode 0600."),
    ] = None,
    namespaces: Annotated[
        bool | None,
        typer.Option(
            "--namespaces/--no-namespaces", help="Serve the logs in the directory's subdirectories, by their names."
        ),
    ] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Listen beyond this machine without TLS and tokens.")
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Status page, /metrics, /readyz, /livez; or off.")
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Redis Streams: an address, or a Unix socket's path; or off."),
    ] = None,
    http_api: Annotated[
        bool | None, typer.Option("--http-api/--no-http-api", help="The HTTP side takes and gives records, at /v1.")
    ] = None,
    stop_seconds: Annotated[float | None, typer.Option(help="Deadline for an orderly end.")] = None,
    replicate: Annotated[
        str | None, typer.Option(metavar="URL", help="Ship every commit to nats://host,host,host/stream.")
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Store sealed segments there: s3://bucket/prefix, file:///directory."),
    ] = None,
    config: Annotated[str | None, typer.Option(metavar="PATH", help="TOML file with settings.")] = None,
    dev: Annotated[
        bool, typer.Option("--dev", help="To try things out: everything, for this machine only, in a fresh directory.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A limit or an option of the log; repeatable."),
    ] = None,
    loop: Annotated[options.Loop, typer.Option(help="Event loop.")] = options.Loop.AUTO,
    check: Annotated[bool, typer.Option("--check", help="Print the settings in effect, check them, and exit.")] = False,
) -> None:
    """Serve a log to other processes until SIGTERM.

    Clients open unix:///path, wal://host:port or wals://host:port as they open a directory. Settings are taken from flags,
    then WALSVC_* (WALSVC_UNIX, say), then the TOML file, then the defaults. A token never comes from the command line: it
    is in the token file, or in WALSVC_TOKEN; the keys of an encrypted log are in the key file. `walsvc serve --dev` is all that
    the first minute needs.
    """
    given = {
        "data": data,
        "unix": unix,
        "listen": listen,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
        "token_file": token_file,
        "key_file": key_file,
        "namespaces": namespaces,
        "insecure": insecure,
        "http": http,
        "redis": redis,
        "http_api": http_api,
        "stop_seconds": stop_seconds,
        "replicate": replicate,
        "archive": archive,
    }

    async def verb() -> int:
        import logging

        from walsvc.cli import dev as trying
        from walsvc.cli.logs import LogLines
        from walsvc.service.ops.fields import from_pairs
        from walsvc.service.ops.run import run
        from walsvc.service.ops.settings import load_settings

        flags = {**from_pairs(settings or []), **{k: v for k, v in given.items() if v is not None}}
        effective = load_settings(trying.settings(flags) if dev else flags, config=config)
        if check:
            effective.server()
            for line in effective.lines():
                output.echo(line)
            return exits.OK
        shown = logging.StreamHandler()
        shown.setFormatter(LogLines("%(levelname)s %(name)s: %(message)s"))
        logging.basicConfig(level=logging.WARNING if dev else logging.INFO, handlers=[shown])
        await run(effective, partial(trying.greet, effective.main) if dev else announce)
        return exits.OK

    runner.run(verb, loop=loop.value)


def announce(addresses: tuple[str, ...]) -> None:
    """Say that clients can connect; who started the process may be reading a pipe."""
    output.echo(f"listening on {' '.join(addresses)}")
    sys.stdout.flush()
