"""`python -m bench compare`: walsvc and its peers in turns, each in a process of its own, on the same file system."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from bench import load
from bench.device import Device
from bench.environment import Results, Spread
from bench.peers import EMBEDDED, NAIVE, OURS, PEERS, SERVED, Peer, Workshop

LIMIT_SECONDS = 0.3
START_SECONDS = 60.0  # more than any of them needs to start and stop


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to compare.

    Attributes:
        tasks: numbers of concurrent appends.
        size: payload bytes.
        seconds: of each turn.
        rounds: turns of each peer; walsvc gets one before each of the others'.
        only: peers by name; None: all.
        collected: also run the Python libraries behind a collector of ours.
        service: walsvc behind its Unix socket against the peers that are servers, and against walsvc embedded.
    """

    tasks: tuple[int, ...] = (1, 64, 1024)
    size: int = 256
    seconds: float = 1.0
    rounds: int = 3
    only: frozenset[str] | None = None
    collected: bool = True
    service: bool = False

    @property
    def ours(self) -> Peer:
        """walsvc itself, in the way that is compared."""
        return SERVED if self.service else OURS

    def peers(self) -> list[Peer]:
        """Those asked for."""
        if self.service:
            servers = [peer for peer in PEERS if peer.kind == "server"]
            return [EMBEDDED, *(peer for peer in servers if self.only is None or peer.name in self.only)]
        return [
            peer
            for peer in PEERS
            if (self.only is None or peer.name in self.only or peer is NAIVE)
            and (self.collected or not (peer.collected and peer.kind == "python"))
        ]


@dataclass(slots=True)
class Turns:
    """What a peer did at one number of tasks."""

    per_s: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)

    def add(self, answer: dict[str, Any]) -> None:
        """One turn's answer."""
        self.per_s.append(answer["appends"] / answer["seconds"])
        self.p50_us.append(answer["p50_us"])
        self.p99_us.append(answer["p99_us"])


@dataclass(slots=True)
class Table:
    """All that was measured.

    `beside` holds walsvc's own turns that stood right before a peer's: the ratio is taken from neighbours in time.
    """

    tasks: tuple[int, ...]
    label: str = OURS.label
    ours: dict[int, Turns] = field(default_factory=dict)
    turns: dict[tuple[str, int], Turns] = field(default_factory=dict)
    beside: dict[tuple[str, int], Turns] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    peers: dict[str, Peer] = field(default_factory=dict)

    def ratio(self, label: str, tasks: int) -> Spread | None:
        """walsvc's throughput over the peer's, turn by turn; None where the peer did nothing."""
        theirs, ours = self.turns.get((label, tasks)), self.beside.get((label, tasks))
        if theirs is None or ours is None or not all(theirs.per_s):
            return None
        return Spread.over(ours.per_s, theirs.per_s)


async def run(
    place: str, workshop: Workshop, comparison: Comparison, *, results: Results, tick: Callable[[str], None]
) -> Table:
    """Measure everything; a peer that is not here, or that fails, is skipped with its reason and the others go on."""
    table = Table(comparison.tasks, comparison.ours.label)
    present: list[Peer] = []
    for peer in comparison.peers():
        if (reason := workshop.absence(peer)) is not None:
            table.skipped[peer.label] = reason
        else:
            present.append(peer)
            table.peers[peer.label] = peer
    for number in range(comparison.rounds):
        for tasks in comparison.tasks:
            for peer in present:
                if peer.label in table.skipped:
                    continue
                tick(f"round {number + 1} of {comparison.rounds}, {tasks} tasks, {peer.label}")
                await turn(place, workshop, comparison, table, peer, tasks)
    await write(place, comparison, table, results)
    return table


async def turn(  # noqa: PLR0917 - one step of `run`
    place: str, workshop: Workshop, comparison: Comparison, table: Table, peer: Peer, tasks: int
) -> None:
    """walsvc, then the peer."""
    ours = await once(place, workshop, comparison, comparison.ours, tasks)
    try:
        theirs = await once(place, workshop, comparison, peer, tasks)
        if not theirs["appends"]:
            raise PeerFailed(f"no append was answered in {comparison.seconds} s at {tasks} tasks")
    except PeerFailed as failure:
        table.skipped[peer.label] = str(failure)
        return
    table.ours.setdefault(tasks, Turns()).add(ours)
    table.beside.setdefault((peer.label, tasks), Turns()).add(ours)
    table.turns.setdefault((peer.label, tasks), Turns()).add(theirs)


SERVICE_NEEDS = {1: 1.2, 64: 4.0, 1024: 10.0}  # times the rate of another server, from so many tasks on
PYTHON_NEEDS = {1: 1.0, 64: 5.0}  # of a Python choice, used as its documentation shows
OTHER_NEEDS = {1: 1.0}  # of everything else


def need(peer: Peer, tasks: int, *, service: bool) -> float:
    """How many times the rate of `peer` is asked for. The embedded log is no rival of the service: its ratio is the share of the rate
    that the socket keeps."""
    if service:
        needs = SERVICE_NEEDS if peer.kind == "server" else {1: 0.0}
    else:
        needs = PYTHON_NEEDS if peer.kind in ("python", "server") and not peer.collected else OTHER_NEEDS
    return needs[max(each for each in needs if each <= tasks)]


def unmet(table: Table, *, service: bool) -> list[str]:
    """What walsvc must be and is not."""
    found = []
    for label, tasks in table.turns:
        ratio, asked = table.ratio(label, tasks), need(table.peers[label], tasks, service=service)
        if ratio is not None and ratio.median < asked:
            found.append(f"not met: {ratio.median:.2f} x {label} at {tasks} tasks, asked for {asked:g} x")
    return found


class PeerFailed(Exception):
    """A peer did not give an answer."""


async def once(place: str, workshop: Workshop, comparison: Comparison, peer: Peer, tasks: int) -> dict[str, Any]:
    """One turn of one peer in a fresh directory. A peer that hangs is ended with all its children."""
    path = os.path.join(place, "turn")
    os.mkdir(path)
    command = [*workshop.command(peer), "--dir", path, "--tasks", str(tasks), "--size", str(comparison.size)]
    child = await asyncio.create_subprocess_exec(
        *command,
        "--seconds",
        str(comparison.seconds),
        env=workshop.variables(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(child.communicate(), START_SECONDS + 10 * comparison.seconds)
    except TimeoutError:
        raise PeerFailed(f"no answer within {START_SECONDS + 10 * comparison.seconds:.0f} s at {tasks} tasks") from None
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)  # a server that its client left behind; nothing when all are gone
        except ProcessLookupError:
            pass
        await child.wait()
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
    if child.returncode:
        lines = err.decode(errors="replace").strip().splitlines() or ["no message"]
        raise PeerFailed(f"ended with {child.returncode}: {lines[-1]}")
    answer: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    return answer


async def write(place: str, comparison: Comparison, table: Table, results: Results) -> None:
    """The result lines: each peer, walsvc, who was skipped, and what the limits are here."""
    common = {"size": comparison.size, "seconds": comparison.seconds, "rounds": comparison.rounds}
    for tasks in comparison.tasks:
        for label, peer in table.peers.items():
            if (turns := table.turns.get((label, tasks))) is not None:
                ratio = table.ratio(label, tasks)
                beside = table.beside[label, tasks].per_s
                results.add(
                    **common, **identity(peer), tasks=tasks, **asdict(turns), walsvc_per_s=beside, ratio=spread(ratio)
                )
        if tasks in table.ours:
            results.add(**common, **identity(comparison.ours), tasks=tasks, **asdict(table.ours[tasks]))
    with await asyncio.to_thread(Device, place) as device:
        for tasks in comparison.tasks:
            results.add(**common, **await limit(device, tasks))
    for label, reason in table.skipped.items():
        results.add(**common, peer=label, skipped=reason)


async def limit(device: Device, tasks: int) -> dict[str, Any]:
    """What device and asyncio allow at that number of tasks."""
    floor = await asyncio.to_thread(device.floor, 4096, LIMIT_SECONDS)
    ceiling = await load.ceiling(tasks, LIMIT_SECONDS)
    return {
        "peer": "limit",
        "tasks": tasks,
        "per_s": [tasks / (floor + tasks / ceiling.per_s)],
        "ceiling_per_s": ceiling.per_s,
        "floor_us": floor * 1e6,
    }


def identity(peer: Peer) -> dict[str, Any]:
    """Which peer a line is about."""
    return {
        "peer": peer.name,
        "configuration": peer.configuration,
        "peer_kind": peer.kind,
        "collected": peer.collected,
    }


def spread(value: Spread | None) -> dict[str, float] | None:
    """For JSON."""
    return None if value is None else value._asdict()


def names(peers: Iterable[Peer] = PEERS) -> list[str]:
    """Names of the peers, each once."""
    return list(dict.fromkeys(peer.name for peer in peers))
