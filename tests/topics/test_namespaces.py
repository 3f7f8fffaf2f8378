"""Namespaces: logs of their own below one directory."""

from __future__ import annotations

import pytest

import walsvc
from walsvc import BadOption, Locked


async def test_two_namespaces_never_share_state(tmp_path):
    async with walsvc.open(tmp_path, namespace="a") as a, walsvc.open(tmp_path, namespace="b") as b:
        await a.topic("t").append(b"of a")
        await (await a.topic("t").consumer("c")).close()
        assert (b.next_lsn, b.topics(), await b.consumers()) == (1, [], [])
        await b.append(b"of b")
        with pytest.raises(Locked):
            await walsvc.open(tmp_path, namespace="a")
    async with walsvc.open(tmp_path / "a") as a:
        assert [record.payload async for record in a.read()] == [b"of a"]
    async with walsvc.open(tmp_path, namespace="b", read_only=True) as b:
        assert [record.payload async for record in b.read()] == [b"of b"]


async def test_similar_names_are_different_namespaces(tmp_path):
    names = ["a-b", "a_b", "a.b", "A-B", "ab", "-", "_", "a" * 200]
    for number, name in enumerate(names):
        async with walsvc.open(tmp_path, namespace=name, segment_bytes=65536) as log:
            await log.append(b"%d" % number)
    for number, name in enumerate(names):
        async with walsvc.open(tmp_path, namespace=name, read_only=True) as log:
            assert [record.payload async for record in log.read()] == [b"%d" % number]


async def test_root_may_be_a_log_itself(tmp_path):
    async with walsvc.open(tmp_path) as root, walsvc.open(tmp_path, namespace="inner") as inner:
        await root.append(b"root")
        await inner.append(b"inner")
    async with walsvc.open(tmp_path) as root:
        assert [record.payload async for record in root.read()] == [b"root"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a",
        "a/b",
        "/a",
        "a\x00",
        ".hidden",
        "a b",
        "ä",
        "a" * 201,
        "LOCK",
        "1.wal",
        "x.spare",
        7,
        "a\n",
        "double-write",
        "double-write.new",
    ],
)
async def test_bad_names_are_refused(tmp_path, name):
    with pytest.raises(BadOption):
        walsvc.open(tmp_path, namespace=name)
    assert list(tmp_path.iterdir()) == []
