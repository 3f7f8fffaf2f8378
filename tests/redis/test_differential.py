"""The same commands to a real Redis and to walsvc: equal answers, but for what docs/REDIS.md says differs.

Redis is given the ids that walsvc has given. It runs where Debian's redis-server, or another 7.x, is installed.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.redis.cases import CASES
from tests.redis.serving import GONE, side, talking

REDIS = shutil.which("redis-server")
KEYS = ("a", "b", "none")
VARIES = {b"entries-read", b"idle", b"seen-time"}
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


def plain(answer: Any, more: frozenset[bytes] = frozenset()) -> Any:
    """An answer without the times in it, and without what walsvc has not or counts otherwise; `more` of it."""
    varies = VARIES | more
    if isinstance(answer, dict):
        return {name: plain(each, more) for name, each in answer.items() if name not in varies}
    if not isinstance(answer, list):
        return answer
    pending = len(answer) in (3, 4) and isinstance(answer[-1], int) and isinstance(answer[-2], int)
    if pending and isinstance(answer[0], bytes):
        return [*answer[:-2], answer[-1]]
    left = set[int]()
    for place, each in enumerate(answer):
        if isinstance(each, bytes) and each in varies:
            left |= {place, place + 1}
    return [plain(each, more) for place, each in enumerate(answer) if place not in left]


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
            ["XINFO", "STREAM", other, "FULL"],
            ["XINFO", "STREAM", other, "FULL", "COUNT", chance.choice(["0", "1", "-1", "x"])],
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
            ["XCLAIM", other, group, worker, "0", place, "IDLE", chance.choice(["0", "7200000", "-1", "x"])],
            ["XCLAIM", other, group, worker, "0", place, "TIME", chance.choice(["0", "1", "x"]), "JUSTID"],
            ["XCLAIM", other, group, worker, "0", place, "RETRYCOUNT", chance.choice(["0", "7", "-1", "x"])],
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


@pytest.mark.parametrize("resp", ["2", "3"])
async def test_answers_are_those_of_redis(redis_path: Path, tmp_path: Path, resp: str) -> None:
    chance = random.Random(resp)
    async with side(tmp_path), talking(tmp_path) as ours, talking(redis_path, "redis") as theirs:
        assert await theirs("FLUSHALL") == "OK"
        for talk in (ours, theirs):
            await talk("HELLO", resp)
        for _ in range(500):
            words = some_command(chance)
            answer = await ours(*words)
            if words[0] == "XADD" and isinstance(answer, bytes):
                words[words.index("*")] = answer
            assert plain(answer) == plain(await theirs(*words)), words


@pytest.mark.parametrize("resp", ["2", "3"])
@pytest.mark.parametrize("case", CASES)
async def test_each_case_is_answered_as_by_redis(redis_path: Path, tmp_path: Path, case: str, resp: str) -> None:
    names = {name: f"{name}-{case}-{resp}" for name in ("s", "t", "none")} | {'""': ""}
    ids: list[bytes] = []

    def word_of(text: str) -> str:
        for number, id in enumerate(ids, 1):
            whole = id.decode()
            text = text.replace(f"{{{number}}}", whole).replace(f"{{{number}L}}", whole.partition("-")[0])
        return names.get(text, text)

    async with side(tmp_path), talking(tmp_path) as ours, talking(redis_path, "redis") as theirs:
        for talk in (ours, theirs):
            await talk("HELLO", resp)
        queued: list[list[str]] | None = None  # since MULTI: Redis is told the ids afterwards
        for line in CASES[case].strip().splitlines():
            words = [word_of(word) for word in line.split(" ")]
            answer = await ours(*words)
            if words[0] == "MULTI" and queued is None:
                queued = []
            if queued is not None:
                queued.append(words)
                if words[0] not in ("EXEC", "DISCARD", "QUIT"):
                    continue
                made = iter([each for each in answer if is_id(each)] if isinstance(answer, list) else [])
                for each in queued:
                    if each[0] == "XADD" and "*" in each:
                        each[each.index("*")] = (next(made, None) or b"*").decode() if len(each) > 4 else "*"
                    told = await theirs(*each)
                queued = None
                assert plain(answer) == plain(told), line
                continue
            if words[0] == "XADD" and isinstance(answer, bytes):
                ids.append(answer)
                words[words.index("*")] = answer.decode()
            assert plain(answer) == plain(await theirs(*words)), line


def is_id(answer: Any) -> bool:
    """Whether this is the answer of an XADD."""
    return isinstance(answer, bytes) and re.fullmatch(rb"\d+-0", answer) is not None


GOING_VARIES = frozenset({b"max-deleted-entry-id", b"last-delivered-id", b"lag"})


def some_going(chance: random.Random) -> list[Any]:
    """A command by which entries go, right or wrong."""
    key, other = chance.choice(KEYS[:2]), chance.choice(KEYS)
    ids = [b"%d-0" % chance.randrange(1, 90) for _ in range(4)]
    about, few = chance.choice(["=", "~"]), chance.choice(["0", "1", "5", "20", "1000"])
    return chance.choice(
        [
            ["XDEL", other, *ids[: chance.randrange(1, 5)]],
            ["XDEL", key, ids[0], ids[0], ids[1]],
            ["XDEL", key, ids[0][:-2]],
            ["XDEL", key, b"%d-1" % chance.randrange(1, 90)],
            ["XDEL", other, chance.choice(["bad", "-", "1-x", "0-0", "99999999999-0"])],
            ["XDEL", key],
            ["XTRIM", other, "MAXLEN", few],
            ["XTRIM", other, "MAXLEN", "=", few],
            ["XTRIM", other, "MAXLEN", "~", few],
            ["XTRIM", other, "MAXLEN", "~", few, "LIMIT", chance.choice(["0", "3", "-1", "x", "1000"])],
            ["XTRIM", other, "MAXLEN", chance.choice(["-1", "x", "~"]), *chance.choice([[], ["5"]])],
            ["XTRIM", other, "MINID", chance.choice([*ids, b"0", b"bad", ids[0][:-2]])],
            ["XTRIM", other, "MINID", about, chance.choice(ids)],
            ["XTRIM", key, "MINID", b"%d-5" % chance.randrange(1, 90)],
            ["XTRIM", key, "MAXLEN", "5", "MINID", "3"],
            ["XTRIM", key, "LIMIT", "5"],
            ["XTRIM", key, "MAXLEN", "5", "LIMIT", "3"],
            ["XTRIM", key, "MAXLEN"],
            ["XTRIM", key, "WHAT", "5"],
            ["XTRIM", key, "MAXLEN", "=", "5", "NOMKSTREAM"],
            ["XADD", key, "MAXLEN", few, "*", "f", "v"],
            ["XADD", key, "MAXLEN", "=", few, "*", "f", "v"],
            ["XADD", key, "maxlen", "~", few, "*", "f", "v"],
            ["XADD", key, "NOMKSTREAM", "MAXLEN", "~", few, "LIMIT", "10", "*", "f", "v"],
            ["XADD", other if other == "none" else key, "NOMKSTREAM", "MINID", chance.choice(ids), "*", "f", "v"],
            ["XADD", key, "MAXLEN", "x", "*", "f", "v"],
            ["XADD", key, "MAXLEN", "3", "LIMIT", "1", "*", "f", "v"],
            ["XADD", key, "LIMIT", "1", "*", "f", "v"],
            ["XADD", key, "MAXLEN", "3", "*", "f"],
            ["XADD", key, "MAXLEN", "3", "MAXLEN", "4", "*", "f", "v"],
            ["DEL", "none"],
            ["DEL"],
            ["UNLINK", "none", "none"],
        ]
    )


@pytest.mark.parametrize("seed", range(3))
async def test_answers_where_entries_go_are_those_of_redis(redis_path: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with side(tmp_path), talking(tmp_path) as ours, talking(redis_path, "redis") as theirs:
        assert await theirs("FLUSHALL") == "OK"
        for step in range(500):
            words = some_going(chance) if chance.randrange(3) == 0 else some_command(chance)
            if step % 97 == 96:
                words = [chance.choice(["DEL", "UNLINK"]), chance.choice(KEYS), "a"]
            answer = await ours(*words)
            if words[0] == "XADD" and isinstance(answer, bytes):
                words[words.index("*")] = answer
            assert plain(answer, GOING_VARIES) == plain(await theirs(*words), GOING_VARIES), (step, words)


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
