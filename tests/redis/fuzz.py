"""Any bytes to a client's connection: nothing but answers and a hang-up comes of it, nothing is held afterwards, and without a token
nothing is done.

python -m tests.redis.fuzz 1000000 [SEED]
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.redis.serving import side
from tests.service.fronts.fuzz import Wire
from tests.service.memory import resident_bytes
from tests.waiting import until
from walsvc.service.fronts.redis.commands import COMMANDS
from walsvc.service.fronts.redis.replies import encode
from walsvc.service.fronts.redis.session import Session
from walsvc.service.server.auth import Grant, Tokens

TOKEN = "0123456789abcdef"
FILE_BYTES = 128  # that a simulated disk keeps for an input of the files that truncations have removed
WORDS = [
    *[b"s", b"t", b"g", b"one", b"*", b">", b"$", b"-", b"+", b"0", b"1-0", b"2-0", b"(1-0", b"", b"\xff", b"payload"],
    *[b"COUNT", b"BLOCK", b"STREAMS", b"GROUP", b"CREATE", b"MKSTREAM", b"NOMKSTREAM", b"JUSTID", b"STREAM", b"GROUPS"],
    *[b"1", b"-1", b"99999999999999999999", b"x" * 300, b"NOACK", b"SETINFO", b"AUTH", b"default", TOKEN.encode()],
]
GOOD = [
    line.encode().split()
    for line in (
        "XADD s * f v",
        "XADD t NOMKSTREAM * payload x",
        "XRANGE s - + COUNT 2",
        "XREAD BLOCK 0 STREAMS s t 0 $",
        "XGROUP CREATE s g 0 MKSTREAM",
        "XREADGROUP GROUP g one COUNT 1 BLOCK 1 STREAMS s >",
        "XACK s g 1-0 2-0",
        "XAUTOCLAIM s g two 0 0",
        "XPENDING s g - + 3",
        "XGROUP DESTROY s g",
        "MULTI",
        "EXEC",
        "WATCH s",
        "HELLO 3",
        "INFO",
        "QUIT",
    )
]


def some_input(chance: random.Random) -> bytes:
    """Commands, most of them with something wrong, and perhaps bytes that are none."""
    names = sorted(COMMANDS)
    data = bytearray()
    for _ in range(chance.randrange(1, 12)):
        words = chance.choice(GOOD) if chance.random() < 0.5 else [chance.choice(names), *chance.choices(WORDS, k=5)]
        data += encode(words[: chance.choice([len(words), len(words), chance.randrange(1, 7)])], 2)
    for _ in range(chance.choice([0, 0, 1, 3])):
        place = chance.randrange(len(data))
        data[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    return bytes(data)


async def say(server: Any, data: bytes, chance: random.Random) -> None:
    """One client, which says these bytes in pieces and hangs up."""
    session = Session(server.shared)
    wire = Wire(session)
    session.connection_made(wire)
    while data and not wire.is_closing():
        length = chance.choice([1, 7, 100, len(data)])
        session.data_received(data[:length])
        data = data[length:]
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
    wire.close()
    await until(lambda: session not in set(server.roster), 0)


async def campaign(count: int, seed: int, directory: Path, *, strangers: bool) -> list[int]:
    """Say `count` inputs to a server of their own, which asks for a token that nobody has if they are of strangers; returns the MiB that the
    process has resident after each quarter of them."""
    chance = random.Random(seed)
    tokens = Tokens([(TOKEN + "!", Grant("all", frozenset({"append", "read", "consume"})))]) if strangers else None
    resident = list[int]()
    async with side(directory, tokens=tokens) as server:
        failed: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
        for number in range(count):
            await say(server, some_input(chance), chance)
            assert not failed, f"seed {seed}: {failed}"
            if (number + 1) % max(count // 4, 1) == 0:
                resident.append(resident_bytes(os.getpid()) >> 20)
            if (log := server.logs.get("")) is not None and log.next_lsn - log.first_lsn > 500:
                await log.truncate_before(log.next_lsn, force=True)  # a simulated disk holds its files in memory, too
        for _ in range(50):
            await asyncio.sleep(0)
        assert server.budget.bytes == 0, f"seed {seed}"
        assert server.budget.asked == 0, f"seed {seed}"
        assert not failed, f"seed {seed}: {failed}"
        appended = server.logs[""].next_lsn - 1
        assert (appended == 0) if strangers else (appended > 0 or count < 100), f"seed {seed}"
    return resident


if __name__ == "__main__":
    began, inputs, first = time.monotonic(), int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for stranger in (False, True):
        with tempfile.TemporaryDirectory() as where:
            resident = asyncio.run(campaign(inputs // 2, first, Path(where), strangers=stranger))
        print(
            "strangers" if stranger else "anybody",
            inputs // 2,
            "inputs, resident MiB by quarters",
            resident,
            flush=True,
        )
        assert resident[-1] - resident[0] <= 32 + (inputs * FILE_BYTES >> 21), "more memory from quarter to quarter"
    print(f"{time.monotonic() - began:.0f} s")
