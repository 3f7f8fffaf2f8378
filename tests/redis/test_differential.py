"""The same commands to a real Redis and to walsvc: equal answers, but for what docs/REDIS.md says differs.

Redis is given the ids that walsvc has given. It runs where Debian's redis-server, or another 7.x, is installed.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.redis.serving import GONE, side, talking

REDIS = shutil.which("redis-server")
KEYS = ("a", "b", "none")
ABSENT = {
    b"radix-tree-keys",
    b"radix-tree-nodes",
    b"entries-added",
    b"max-deleted-entry-id",
    b"last-generated-id",
    b"entries-read",
    b"last-delivered-id",
    b"lag",
    b"idle",
}
pytestmark = pytest.mark.skipif(REDIS is None, reason="there is no redis-server (Debian: redis-server)")


@pytest.fixture(scope="module")
def redis_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which a real Redis listens at `redis`."""
    place = tmp_path_factory.mktemp("redis")
    command = [str(REDIS), "--port", "0", "--unixsocket", str(place / "redis"), "--save", "", "--dir", str(place)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "ready to accept" not in (line := process.stdout.readline()).lower():
        assert line, "redis-server has ended"
    try:
        yield place
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def plain(answer: Any) -> Any:
    """An answer without what walsvc does not have."""
    if isinstance(answer, list):
        items = [plain(each) for each in answer]
        if len(items) == 4 and isinstance(items[2], int) and isinstance(items[3], int):
            items[2] = "idle"
        if items and items[0] in (b"length", b"name"):
            pairs = zip(items[::2], items[1::2], strict=True)
            return [each for pair in pairs if pair[0] not in ABSENT for each in pair]
        return items
    return answer


def some_command(chance: random.Random) -> list[Any]:
    """A command, right or wrong."""
    key, other = chance.choice(KEYS[:2]), chance.choice(KEYS)
    group, worker = chance.choice(["g", "h"]), chance.choice(["one", "two"])
    place = b"%d-0" % chance.randrange(1, 64)
    bound = chance.choice([place, b"(" + place, "-", "+", "0", "bad", place[:-2]])
    return chance.choice(
        [
            ["XADD", key, "*", chance.choice("xyz"), place],
            ["XADD", key, "*", "f", "1", "f", "2", "", b"\x00\r\n"],
            ["XADD", key, "*", "payload", b"raw"],
            ["XADD", other if other == "none" else key, "NOMKSTREAM", "*", "f", "v"],
            ["XADD", key, "*", "f"],
            ["xadd", key],
            ["XLEN", other],
            ["XLEN"],
            ["XRANGE", other, bound, chance.choice([place, b"(" + place, place[:-2], "+", "bad"])],
            ["XRANGE", other, "-", "+", "COUNT", chance.choice(["0", "1", "2", "-1", "x", "100"])],
            ["XREVRANGE", other, chance.choice([place, b"(" + place, "+", "bad"]), bound],
            ["XREVRANGE", other, "+", "-", "COUNT", chance.choice(["0", "1", "2", "-1", "x", "100"])],
            ["XRANGE", other, "-"],
            ["XRANGE", other, "-", "+", "LIMIT", "1"],
            ["XREAD", "STREAMS", other, chance.choice([place, "0", "0-0", "$", "bad"])],
            ["XREAD", "COUNT", chance.choice(["1", "0", "-3", "x"]), "STREAMS", "a", "b", "none", "0", place, "0"],
            ["XREAD", "BLOCK", chance.choice(["1", "-1", "x"]), "STREAMS", "none", "$"],
            ["XREAD", "STREAMS", "a", "b", "0"],
            ["XREAD", "COUNT", "1"],
            ["XINFO", "STREAM", other],
            ["XINFO", "NOTHING", other],
            ["XGROUP", "CREATE", other, group, chance.choice(["0", "$", "bad"])],
            ["XGROUP", "CREATE", key, group, "0", "MKSTREAM"],
            ["XGROUP", "CREATE", key, group],
            ["XGROUP", "CREATE", key, group, "0", "WHAT"],
            ["XGROUP", "DESTROY", other, group],
            ["XGROUP", "CREATECONSUMER", other, group, worker],
            ["XGROUP", "DELCONSUMER", other, group, worker],
            ["XGROUP", "NOTHING"],
            ["XREADGROUP", "GROUP", group, worker, "COUNT", chance.choice(["1", "3"]), "STREAMS", key, ">"],
            ["XREADGROUP", "GROUP", group, worker, "COUNT", "2", "NOACK", "STREAMS", key, ">"],
            ["XREADGROUP", "GROUP", group, worker, "STREAMS", other, chance.choice(["0", place, "$", "bad"])],
            ["XREADGROUP", "GROUP", group, worker, "BLOCK", "1", "COUNT", "1", "STREAMS", key, ">"],
            ["XREADGROUP", "GROUP", group, worker, "STREAMS", "a", "b", ">"],
            ["XREADGROUP", "WHAT", group, worker, "STREAMS", "a", ">"],
            ["XACK", other, group, place, chance.choice([place, b"%d-0" % chance.randrange(64), "bad"])],
            ["XPENDING", other, group],
            ["XPENDING", other, group, "-", "+", chance.choice(["10", "1", "x"])],
            ["XPENDING", other, group, "-", place, "10", worker],
            ["XPENDING", other, group, "-"],
            ["XPENDING", other, group, "IDLE", "3600000", "-", "+", "10"],
            ["XCLAIM", other, group, worker, chance.choice(["0", "3600000", "x"]), place, b"9-0"],
            ["XCLAIM", other, group, worker, "0", place, "JUSTID"],
            ["XCLAIM", other, group, worker, "0", place, "WHAT"],
            ["XAUTOCLAIM", other, group, worker, "0", chance.choice(["0", place, "bad"]), "COUNT", "2"],
            ["XAUTOCLAIM", other, group, worker, "0", "-", "COUNT", "0"],
            ["XINFO", "GROUPS", other],
            ["XINFO", "CONSUMERS", other, group],
            ["EXISTS", "a", "none", "b", "a"],
            ["TYPE", other],
            ["DBSIZE"],
            ["SCAN", "x"],
            ["SCAN", "0", "COUNT", "0"],
            ["PING", "a"],
            ["PING", "a", "b"],
            ["ECHO"],
            ["ECHO", b"\xff"],
            ["SELECT", "x"],
            ["CLIENT", "GETNAME"],
            ["CLIENT", "SETNAME", "a b"],
            ["CLIENT", "NOTHING"],
            ["HELLO", "9"],
            ["HELLO", "x"],
            ["HELLO", "3", "WHAT"],
            ["AUTH", "a", "b", "c"],
            ["WAIT", "0", "0"],
            ["WAIT", "x", "0"],
            ["NOSUCH", "a", "b" * 200, "c"],
        ]
    )


@pytest.mark.parametrize("seed", range(2))
async def test_answers_are_those_of_redis(redis_path: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with side(tmp_path), talking(tmp_path) as ours, talking(redis_path, "redis") as theirs:
        assert await theirs("FLUSHALL") == "OK"
        for _ in range(500):
            words = some_command(chance)
            answer = await ours(*words)
            if words[0] == "XADD" and isinstance(answer, bytes):
                words[words.index("*")] = answer
            assert plain(answer) == plain(await theirs(*words)), words


async def test_what_is_malformed_is_told_and_hung_up_on_as_redis_does(redis_path: Path, tmp_path: Path) -> None:
    async with side(tmp_path):
        for data in (b"*1\r\n:5\r\n", b"*1\r\n$x\r\n", b"*x\r\n", b'ECHO "a\r\n', b"*2\r\n$4\r\nECHO\r\n$-5\r\n"):
            heard = []
            for place, socket in ((tmp_path, "r"), (redis_path, "redis")):
                async with talking(place, socket) as talk:
                    talk.send(data)
                    heard.append([await talk.hear(), await talk.hear()])
            assert heard[0] == heard[1], data
            assert heard[0][1] == GONE
