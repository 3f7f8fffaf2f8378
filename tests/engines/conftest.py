"""Tests against real NATS servers; skipped where there is no binary of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import walsvc
from tests.engines.cluster import WHY_NO_SERVER, Cluster, shared_cluster


@pytest.fixture
def cluster() -> Cluster:
    """Three servers that sync always, shared by all tests of this process."""
    if WHY_NO_SERVER:
        pytest.skip(WHY_NO_SERVER)
    return shared_cluster()


@pytest.fixture
def mortal() -> Iterator[Cluster]:
    """One server of the test's own, to be killed."""
    if WHY_NO_SERVER:
        pytest.skip(WHY_NO_SERVER)
    alone = Cluster(sync_always=(True,)).start()
    yield alone
    alone.stop()


@pytest.fixture
def stream(cluster: Cluster) -> str:
    """Name of a stream of the test's own, which does not exist yet."""
    return cluster.new_stream()


@pytest.fixture
def open_stream(cluster: Cluster, stream: str) -> Callable[..., Any]:
    """walsvc.open for that stream."""

    def opener(**options: Any) -> Any:
        return walsvc.open(cluster.url(stream), **{"monitor": cluster.monitor, "segment_bytes": 65536, **options})

    return opener
