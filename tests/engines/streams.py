"""Looking at a stream, and spoiling it, behind the log's back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats

from tests.engines.cluster import Cluster


@asynccontextmanager
async def api(cluster: Cluster) -> AsyncIterator[Any]:
    """A function for JetStream API requests: `await ask("STREAM.INFO.name", {...})`, with `ask.client`."""
    client = await nats.connect(cluster.servers)

    async def ask(verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        reply = await client.request(f"$JS.API.{verb}", json.dumps(body).encode() if body else b"", timeout=10)
        answer: dict[str, Any] = json.loads(reply.data)
        assert "error" not in answer, answer
        return answer

    ask.client = client  # type: ignore[attr-defined]
    try:
        yield ask
    finally:
        await client.close()


def configuration(name: str, **changes: Any) -> dict[str, Any]:
    """A stream as a log demands it, but for the changes."""
    demanded = {
        "name": name,
        "subjects": [f"walsvc.{name}"],
        "num_replicas": 3,
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "allow_direct": True,
    }
    return demanded | changes
