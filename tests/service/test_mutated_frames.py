"""Frames that were good until a few of their bytes were changed, cut, doubled or moved: a server ends the connection at worst, holds
nothing of it afterwards, and answers its neighbours right. Each run draws its seed and prints it; `WALSVC_FUZZ_SEED` repeats one, and
`WALSVC_FUZZ_RUNS` makes a campaign of it."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from tests.service.raw import Raw
from tests.service.simulated import Devices, serving
from tests.service.test_protocol import EXAMPLES
from tests.waiting import until
from walsvc.errors import ProtocolError
from walsvc.service.server.limits import Limits
from walsvc.service.wire.frames import (
    FROM_CLIENT,
    FROM_SERVER,
    KINDS,
    Ack,
    Append,
    Batch,
    Call,
    Cancel,
    Credit,
    Frame,
    Open,
)
from walsvc.service.wire.methods import METHODS, STREAMS
from walsvc.service.wire.protocol import FrameReader, encode

RUNS = int(os.environ.get("WALSVC_FUZZ_RUNS", "150"))
LIMITS = Limits(frame_bytes=96 << 10, pending_bytes=64 << 10, pending_total_bytes=128 << 10, streams=8, calls=16)


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("WALSVC_FUZZ_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"WALSVC_FUZZ_SEED={seed}")
    return random.Random(seed)


def drawn(rng: random.Random) -> Frame:
    """A frame as a client says it, in order or out of it."""
    id, payloads = rng.randrange(6), [rng.randbytes(rng.choice((0, 1, 100, 5000))) for _ in range(rng.randrange(4))]
    args = {
        "lsn": rng.randrange(9),
        "name": rng.choice("ab"),
        "topic": rng.choice((None, "t", "u")),
        "stream": rng.randrange(6),
    }
    kind = rng.randrange(6)
    if kind == 0:
        return Append(id, 0, 0, 0, rng.randrange(3), args["topic"], 0, rng.choice((b"", b"\x80")), payloads)
    if kind == 1:
        return Batch(id, 0, 0, 0, 0, args["topic"], rng.randrange(2), rng.random() < 0.5, payloads)
    if kind == 2:
        method = METHODS[rng.choice([name for name in METHODS if name != "seal"])]
        return Call(id, method.name, {name: args[name] for name in method.arguments if name in args})
    if kind == 3:
        stream = STREAMS[rng.choice(list(STREAMS))]
        return Open(
            id,
            stream.name,
            {name: args[name] for name in stream.arguments if name in args},
            rng.choice((0, 1, 1 << 40)),
        )
    return Credit(id, rng.randrange(1 << 16)) if kind == 4 else Cancel(id)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The same bytes with a few mistakes; none of them in one case of three."""
    piece = bytearray(data)
    for _ in range(rng.choice((0, 1, 3))):
        at = rng.randrange(len(piece))
        way = rng.randrange(4)
        if way == 0:
            piece[at] = rng.randrange(256)
        elif way == 1:
            del piece[at : at + rng.randrange(1, 5)]
        elif way == 2:
            piece[at:at] = piece[at : at + 8]
        else:
            piece[at] ^= 1 << rng.randrange(8)
        if not piece:
            return b"\xff"
    return bytes(piece)


def test_reader_gives_frames_or_protocol_error_and_the_same_whatever_the_pieces_are(rng) -> None:
    for _ in range(4 * RUNS):
        stream = b"".join(mutated(rng, encode(frame)) for frame in rng.choices(list(EXAMPLES.values()), k=4))
        for table in (FROM_CLIENT, FROM_SERVER):
            outcomes = []
            for step in (len(stream), rng.randrange(1, 9)):
                reader, found = FrameReader(table, 1 << 16), []
                try:
                    for at in range(0, len(stream), step):
                        reader.receive(stream[at : at + step])
                        while (frame := reader.next_frame()) is not None:
                            assert KINDS[type(frame)][0] in table
                            found.append(frame)
                    outcomes.append((found, None, reader.incomplete_bytes))
                except ProtocolError as error:
                    outcomes.append((found, error.message, 0))
            assert outcomes[0] == outcomes[1]


async def test_server_outlives_mutated_frames_and_holds_nothing_of_them(tmp_path, rng) -> None:
    trouble: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(str(context)))
    async with serving(tmp_path, Devices(), limits=LIMITS) as server, await Raw.welcomed(server) as good:
        for number in range(RUNS):
            raw = await Raw.welcomed(server, producer=rng.choice((0, 7)))
            for _ in range(rng.randrange(1, 8)):
                raw.writer.write(mutated(rng, encode(drawn(rng))))
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
            raw.writer.transport.abort()
            if number % 10 == 0:
                good.append(1, b"good")
                assert (await good.expect(Ack, 1)).durable
        await until(lambda: len(server.roster) == 1)
        await server.shared.closing.done()
        await until(lambda: server.budget.bytes == 0)
        shared = server.shared
        assert (shared.streams.used, shared.calls.used, server.budget.held, server.budget.asked) == (0, 0, 0, 0)
        assert (server.budget.outgoing.bytes, server.budget.outgoing.resting_bytes) == (0, 0)
        assert server.status().rejected.get("internal") is None
    assert trouble == []
