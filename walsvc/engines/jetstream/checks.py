"""Requirements on a stream and its servers, so that an acknowledgement means what it means on a disk.

They are read once, when the log is opened: no server tells of a later change by an operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from walsvc.disk.pool import in_thread
from walsvc.engines.jetstream.connect import Refused, close_client, connect, within
from walsvc.engines.jetstream.options import MONITOR_PORT, Address, JetStreamOptions
from walsvc.engines.jetstream.stream import ApiError, Stream
from walsvc.errors import PathError

if TYPE_CHECKING:
    from nats.aio.client import Client

VERSION_MIN = (2, 11)  # direct reads in batches, sync_always in what a server says of itself
MONITOR_SECONDS = 3.0
NO_PLACE = 10005  # JetStream's code for: too few servers for a new stream's replicas
DUPLICATE_WINDOW_NS = 120_000_000_000
SYNC_LINE = "jetstream { sync_interval: always }"
SYSTEM_VARZ = "$SYS.REQ.SERVER.PING.VARZ"

# what the stream must say, what a log does with it otherwise, and the command that changes it
DEMANDS: tuple[tuple[str, Any, str, str], ...] = (
    (
        "storage",
        "file",
        "keeps its messages in memory",
        "make it anew with file storage: nats stream add {0} --storage=file",
    ),
    (
        "retention",
        "limits",
        "drops what its consumers have seen",
        "make it anew: nats stream add {0} --retention=limits",
    ),
    ("discard", "new", "discards old messages when it is full", "nats stream edit {0} --discard=new"),
    ("max_age", 0, "discards messages when they are old", "nats stream edit {0} --max-age=0"),
    ("max_msgs", -1, "has a limit of messages", "nats stream edit {0} --max-msgs=-1"),
    (
        "max_msgs_per_subject",
        -1,
        "has a limit of messages for a subject",
        "nats stream edit {0} --max-msgs-per-subject=-1",
    ),
    ("max_msg_size", -1, "has a limit for the size of a message", "nats stream edit {0} --max-msg-size=-1"),
    ("allow_direct", True, "does not let its messages be read directly", "nats stream edit {0} --allow-direct"),
    ("deny_purge", False, "does not let old messages be purged", "make it anew without --deny-purge"),
    ("no_ack", False, "does not acknowledge", "nats stream edit {0} --ack"),
    ("sealed", False, "is sealed", "restore a copy of it into a new stream"),
    ("allow_rollup_hdrs", False, "lets a message replace older ones", "nats stream edit {0} --no-allow-rollup"),
    ("allow_msg_ttl", False, "lets messages expire", "make it anew without --allow-msg-ttl"),
    ("persist_mode", "default", "acknowledges before it has stored", "make it anew with --persist-mode=default"),
    ("mirror", None, "mirrors another one", "use a stream of its own"),
    ("sources", None, "takes messages from other ones", "use a stream of its own"),
)
ABSENT = {
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "persist_mode": "default",
    "mirror": None,
    "sources": None,
    "max_age": 0,
}


def new_stream(stream: Stream, replicas: int) -> dict[str, Any]:
    """The configuration of a stream that a log is kept in."""
    return {
        "name": stream.name,
        "subjects": [stream.subject],
        "description": "a walsvc log; its messages are of walsvc's own format",
        "num_replicas": replicas,
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_age": 0,
        "max_msgs": -1,
        "max_bytes": -1,
        "allow_direct": True,
        "deny_delete": True,
        "duplicate_window": DUPLICATE_WINDOW_NS,
    }


async def ensure_stream(stream: Stream, options: JetStreamOptions, *, create: bool) -> dict[str, Any]:
    """The stream's info, after making it if it is missing. Raises PathError where it is no place for a log."""
    check_version(stream)
    try:
        info = await stream.info()
    except PathError as error:
        raise await without_majority(stream, error) from None
    if info is None and not create:
        raise PathError(
            "there is no such stream", path=stream.path, hint="check the name; opened for writing, it is made"
        )
    if info is None:
        try:
            info = await stream.ask(f"STREAM.CREATE.{stream.name}", new_stream(stream, options.replicas))
        except ApiError as error:
            refused = stream.refused(error)
            if error.code == NO_PLACE:
                refused.hint = f"a new stream needs {options.replicas} servers that are up; one that exists, a majority"
            raise refused from None
    check_config(stream, info["config"])
    return info


def check_version(stream: Stream) -> None:
    """Raise PathError where the server does not answer direct reads in batches, and so could not be read."""
    version = stream.client.connected_server_version
    if (version.major, version.minor) < VERSION_MIN:
        raise Refused(
            f"the server is nats-server {version.major}.{version.minor}",
            path=stream.path,
            expected=".".join(map(str, VERSION_MIN)) + " or later",
            hint="upgrade nats-server",
        )


def check_config(stream: Stream, config: dict[str, Any]) -> None:
    """Raise PathError where the stream's configuration would let records be lost. Replicas are judged elsewhere."""
    for name, wanted, wrong, change in DEMANDS:
        found = config.get(name, ABSENT.get(name, False))
        if found != wanted and not (wanted is None and not found) and not (wanted == -1 and found == 0):
            raise Refused(
                f"stream {stream.name} {wrong}: it is no place for a log",
                path=stream.path,
                expected=f"{name}: {json.dumps(wanted)}",
                actual=json.dumps(found),
                hint=change.format(stream.name),
            )
    if config.get("subjects") != [stream.subject]:
        raise Refused(
            f"stream {stream.name} was not made for a log of that name",
            path=stream.path,
            expected=f"subjects: [{stream.subject}]",
            actual=config.get("subjects"),
            hint="use another stream's name; a missing one is made",
        )


async def without_majority(stream: Stream, error: PathError) -> PathError:
    """`error`, or, where some of the address's servers take no connection, which they are."""

    async def silent(server: str) -> bool:
        host, _, port = server.partition("://")[2].rpartition(":")
        try:
            async with asyncio.timeout(MONITOR_SECONDS):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:  # TimeoutError is one
            return True
        writer.transport.abort()
        return False

    answers = await asyncio.gather(*map(silent, stream.servers))
    if not any(answers):
        return error
    down = ", ".join(server for server, is_silent in zip(stream.servers, answers, strict=True) if is_silent)
    return PathError(
        f"{error.message}; down: {down}",
        path=stream.path,
        hint="a majority of the stream's servers must be up; nothing is lost, open the log when they are back",
    )


def peers_of(info: dict[str, Any]) -> list[str]:
    """Names of the servers that hold the stream."""
    cluster = info.get("cluster") or {}
    return [name for name in (cluster.get("leader"), *(each["name"] for each in cluster.get("replicas") or ())) if name]


def leader_of(info: dict[str, Any]) -> str | None:
    """Name of the server that leads the stream, if one does."""
    return (info.get("cluster") or {}).get("leader")


async def ask_servers(address: Address, options: JetStreamOptions) -> dict[str, bool]:
    """Which servers sync always, by name, as far as anybody tells."""
    if options.system_user is not None or options.system_credentials is not None:
        return await ask_system(address, options)
    urls = options.monitors
    if urls is None:
        urls = [f"http://{host}:{MONITOR_PORT}" for host in address.hosts]
    from walsvc.engines.jetstream.encryption import encryption_of

    context = (await in_thread(encryption_of, address, options)).context
    answers = await asyncio.gather(*(in_thread(read_varz, url, context) for url in urls))
    return dict(filter(None, map(sync_of, answers)))


async def ask_system(address: Address, options: JetStreamOptions) -> dict[str, bool]:
    """Ask all servers over the system account."""
    login: dict[str, Any] = {"user_credentials": options.system_credentials}
    if options.system_user is not None:
        login = {"user": options.system_user, "password": options.system_password}
    client = await connect(address, options, **login)
    found: dict[str, bool] = {}
    try:
        await within(None, hear_servers(client, found))
    finally:
        await close_client(client)
    return found


async def hear_servers(client: Client, found: dict[str, bool]) -> None:
    """Put into `found` what the servers answer over the system account."""
    from nats.errors import Error

    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    await client.publish(SYSTEM_VARZ, b"", reply=inbox)
    patience = MONITOR_SECONDS  # for the first answer; the others are as near
    with contextlib.suppress(Error, TimeoutError):
        while True:
            reply = await replies.next_msg(timeout=patience)
            answer = json.loads(reply.data or b"{}").get("data")
            if (one := sync_of(answer)) is not None:
                found[one[0]] = one[1]
            patience = MONITOR_SECONDS / 4


def read_varz(url: str, context: ssl.SSLContext | None = None) -> dict[str, Any] | None:
    """Ask a server's monitoring port; None when it does not answer. `context`: for https."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/varz", timeout=MONITOR_SECONDS, context=context) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer
    except (OSError, ValueError, http.client.HTTPException):
        return None


def sync_of(varz: dict[str, Any] | None) -> tuple[str, bool] | None:
    """Name of a server, and whether it syncs always; None where it has no JetStream."""
    config = ((varz or {}).get("jetstream") or {}).get("config")
    if varz is None or not config:
        return None
    return varz["server_name"], config.get("sync_always") is True
