"""The public names of every kind of log, topic and consumer: those of its Protocol, and the few that stand here with their reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.contract.openers import MARKS, opener_on
from walsvc.api import Log as EmbeddedLog

WRITER = "log.writer is the WalWriter, and the way of walsvc's own modules to the parts of a log"
# kind of log -> name -> why it is public
OF_LOGS: dict[str, dict[str, str]] = {
    "sim": {"writer": WRITER},
    "nats": {"writer": WRITER},
    "unix": {
        "writer": "the same, which is refused: the writer is the server's",
        "connected": "docs/SERVICE.md: whether there is a connection",
        "on_connection": "docs/SERVICE.md: told when it is lost and found",
    },
}
OF_READ_ONLY = {
    "writer": "the same, which is refused: there is none",
    "segments": "what an archive reads of a log that another process writes",
}
# name -> which part of walsvc asks it of a consumer
OF_CONSUMERS: dict[str, dict[str, str]] = {
    "sim": {
        **dict.fromkeys(
            ("is_of", "acking"), "a transaction: whose consumer it is, and its acknowledgement as a part of a group"
        ),
        **dict.fromkeys(
            ("turn", "turns", "reads_ahead", "let_go"), "the server: its turn, and what is read ahead for a client"
        ),
    },
    "unix": {
        **dict.fromkeys(("is_of", "id", "check_ack", "acknowledged_there"), "a transaction over the same connection"),
        **dict.fromkeys(
            ("opened", "again", "failed", "received", "lost"), "the connection: what comes for this consumer"
        ),
        **dict.fromkeys(("cut", "purged", "turns"), "the log: what the server took back of what it had sent ahead"),
    },
}
OF_SHARED: dict[str, dict[str, str]] = {
    "sim": {
        "open_hub": "deliveries, transactions and the server: what all who have it open share",
        **dict.fromkeys(("batch_at", "stocked", "ahead"), "the server: what is there for a client, whose turn it is"),
        **dict.fromkeys(
            ("pending", "settle", "out_of", "delivered_lsn", "claim", "take_new", "wait_for_new"), "the Redis front"
        ),
    },
    "unix": {
        **dict.fromkeys(("is_of", "id", "call", "check"), "its deliveries, and a transaction over the same connection"),
        **dict.fromkeys(
            ("opened", "again", "failed", "received", "lost"), "the connection: what comes for this consumer"
        ),
        **dict.fromkeys(("deliveries", "return_unseen"), "a call for records that is answered, or given up"),
        **dict.fromkeys(("ahead", "check_there"), "its acknowledgements, and what their answers bring"),
    },
}
OF_NAMES = {"name", "topic", "worker"}  # which a SharedConsumer gets when it is made


def public(thing: object) -> set[str]:
    """The names that `dir` and an editor show of it."""
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.mark.parametrize("kind", [pytest.param(each, marks=MARKS.get(each, ())) for each in ("sim", "unix", "nats")])
async def test_public_names_are_those_of_the_protocols(kind: str, tmp_path: Path) -> None:
    opener = opener_on(kind, tmp_path)
    consumers = "unix" if kind == "unix" else "sim"
    async with opener() as log:
        assert public(log) == public(walsvc.Log) | OF_LOGS[kind].keys()
        topic = log.topic("orders")
        assert public(topic) == public(walsvc.Topic)
        async with await topic.consumer("one") as consumer:
            assert public(consumer) == public(walsvc.Consumer) | OF_CONSUMERS[consumers].keys()
        async with await topic.consumer("many", shared=True) as shared:
            assert public(shared) == public(walsvc.SharedConsumer) | OF_NAMES | OF_SHARED[consumers].keys()
        if kind == "nats":
            assert type(log) is EmbeddedLog


async def test_public_names_of_a_read_only_log_are_those_of_the_protocols(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path) as log:
        await log.topic("orders").append(b"one")
    opened: Any
    async with walsvc.open(tmp_path, read_only=True) as opened:
        assert public(opened) == public(walsvc.Log) | OF_READ_ONLY.keys()
        assert public(opened.topic("orders")) == public(walsvc.Topic)
