"""Durability of a stream: an acknowledgement counts if a majority of its servers has synced. Each server is asked, but one that is down."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from walsvc.engines.jetstream.checks import SYNC_LINE, ask_servers, leader_of, peers_of
from walsvc.engines.jetstream.connect import Refused
from walsvc.engines.jetstream.options import MONITOR_PORT, Address, JetStreamOptions
from walsvc.engines.jetstream.stream import Stream
from walsvc.errors import PathError

REPLICAS_MIN = 3  # a quorum survives the loss of any one server
SILENT_SECONDS = 2.0  # in which a leader hears twice of a server that is up: followers answer once a second


@dataclass(frozen=True, slots=True)
class Durability:
    """Worth of the stream's acknowledgements. `words` for stats(); `weak`: it is less than a log demands; `down`:
    servers of the stream that were down, and not asked."""

    words: str
    weak: bool
    down: tuple[str, ...] = ()


async def check_durability(
    stream: Stream, info: dict[str, Any], address: Address, options: JetStreamOptions
) -> Durability:
    """Find out if an acknowledgement means that a majority of at least three servers has synced. PathError where it does not,
    unless `allow_unsynced`.

    A server that is down is not asked, as long as a majority has answered: the log goes on without it, so it opens, too.
    """
    replicas = info["config"]["num_replicas"]
    if replicas < REPLICAS_MIN and not options.allow_unsynced:
        raise Refused(
            f"stream {stream.name} has {replicas} replicas: it does not survive the loss of a server",
            path=stream.path,
            expected=f"num_replicas: {REPLICAS_MIN} or more",
            actual=replicas,
            hint=f"nats stream edit {stream.name} --replicas={REPLICAS_MIN}",
        )
    words, begun = f"acknowledged by a majority of {replicas}", time.monotonic()
    led_since = begun
    unknown: list[str] = []
    while True:
        syncing, peers = await ask_servers(address, options), peers_of(info)
        unsynced = sorted(name for name in peers if syncing.get(name) is False)
        before, unknown = unknown, sorted(name for name in peers if name not in syncing)
        if options.allow_unsynced:
            return allowed(words, unsynced + unknown, replicas)
        if unsynced:
            raise not_synced(stream, unsynced)
        if not unknown:
            return Durability(f"{words}, each of which syncs always", weak=False)
        asked = time.monotonic()  # the answer may come late: what it tells is as old as the question, or younger
        leader, info = leader_of(info), await stream.info() or info
        if leader_of(info) != leader:
            led_since = time.monotonic()  # another one has to hear of the others first
        waited = asked - led_since
        up = [name for name in unknown if is_heard_of(name, info, waited)]
        # asked twice: it may have been busy
        if up and unknown == before and (up == unknown or waited > SILENT_SECONDS):
            raise nobody_tells(stream, up)
        if not up and waited > SILENT_SECONDS and len(peers) - len(unknown) > replicas // 2:
            down = f"{', '.join(unknown)} {'was' if len(unknown) == 1 else 'were'} down at opening, and not asked"
            return Durability(f"{words}, each of which syncs always; {down}", weak=False, down=tuple(unknown))
        if time.monotonic() - begun > options.timeout:
            raise too_few(stream, servers(unknown), replicas, options.timeout)
        await asyncio.sleep(SILENT_SECONDS / 8)


def allowed(words: str, names: list[str], replicas: int) -> Durability:
    """Durability of a stream some of whose servers are accepted by `allow_unsynced`."""
    if not names and replicas >= REPLICAS_MIN:
        return Durability(f"{words}, each of which syncs always", weak=False)
    return Durability(
        f"{words}{f', NOT known to be synced by {servers(names)}' * bool(names)} (allow_unsynced)", weak=True
    )


def not_synced(stream: Stream, names: list[str]) -> Refused:
    """The error for servers that say that they do not sync every write."""
    return Refused(
        f"{servers(names)} of stream {stream.name} acknowledges before it has synced: a power cut can lose records",
        path=stream.path,
        expected=SYNC_LINE,
        actual="sync_always: false",
        hint=f"put this line into the configuration of each server and restart one after the other: {SYNC_LINE}",
    )


def nobody_tells(stream: Stream, names: list[str]) -> Refused:
    """The error for servers that are up and whose monitoring does not answer."""
    return Refused(
        f"nobody tells whether {servers(names)} of stream {stream.name} syncs before it acknowledges",
        path=stream.path,
        expected=SYNC_LINE,
        hint=f"monitor=[...] with the servers' monitoring URLs (http_port: {MONITOR_PORT} in their configuration), or "
        "system_user= and system_password= of the system account; allow_unsynced=True opens it all the same",
    )


def too_few(stream: Stream, down: str, replicas: int, timeout: float) -> PathError:
    """Less than a majority is up, and it did not change in time."""
    return PathError(
        f"{down} of stream {stream.name} did not answer for {timeout} s, and a majority must",
        path=stream.path,
        expected=f"{replicas // 2 + 1} of {replicas} servers",
        hint="start the servers; nothing is lost, and the log opens as soon as a majority of them is up",
    )


def is_heard_of(name: str, info: dict[str, Any], seconds: float) -> bool:
    """True if a server was up within the last `seconds`, as the one that leads the stream tells. That a server is offline, or
    not current, it tells only after ten seconds, and of a server that it has never heard of only that."""
    replicas = (info.get("cluster") or {}).get("replicas") or ()
    for each in replicas:
        if each["name"] == name:
            return not each.get("offline") and 0 < each.get("active", 0) < seconds * 1e9
    return name == leader_of(info)


def servers(names: list[str]) -> str:
    """Names in words."""
    return ("server " if len(names) == 1 else "servers ") + ", ".join(names)
