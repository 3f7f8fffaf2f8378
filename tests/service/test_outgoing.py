"""What waits to be sent is bounded, of one client and of all together, and a slow one holds up nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.service.raw import Raw
from tests.service.simulated import serving
from tests.waiting import until
from walsvc import WalConfig
from walsvc.service.server import duplex as of_duplex
from walsvc.service.server import outgoing as of_outgoing
from walsvc.service.server import server as of_server
from walsvc.service.server.limits import Limits
from walsvc.service.server.outgoing import HEAVY_TURNS, RESTING, TURNS, UNSENT_MAX, UNSENT_MIN, Outgoing
from walsvc.service.server.turns import BYTES_A_UNIT, LIGHT, Pace
from walsvc.service.wire.frames import Cancel, Credit, End, Open, Ping, Pong, Records, Result

KIB = 1 << 10
MIB = 1 << 20
BIG = WalConfig(segment_bytes=64 * MIB, max_group_bytes=8 * MIB)


class Resting:
    """A reader, which notes that it let go."""

    def __init__(self) -> None:
        self.gone = 0

    def let_go(self) -> None:
        self.gone += 1


async def silent(server: Any) -> Raw:
    """A client that is welcome, and reads nothing."""
    before = len(server.roster)
    raw = await Raw.to(server)
    raw.writer.transport.pause_reading()
    raw.hello()
    await until(lambda: len(server.roster) == before + 1 and all(each.log is not None for each in server.roster))
    return raw


# ---- by itself


async def test_allowance_shrinks_as_others_have_more() -> None:
    outgoing = Outgoing(16 * MIB)
    assert outgoing.allowance == UNSENT_MAX
    outgoing.charge(12 * MIB)
    assert outgoing.allowance == 512 * KIB
    outgoing.charge(4 * MIB - 1)
    assert (outgoing.allowance, outgoing.full) == (UNSENT_MIN, False)
    outgoing.charge(1)
    assert outgoing.full
    waiting = asyncio.ensure_future(outgoing.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    outgoing.charge(-1)
    await waiting
    assert outgoing.full_since is None


async def test_readers_that_rested_longest_let_go_first() -> None:
    outgoing, readers = Outgoing(RESTING * 100), [Resting() for _ in range(4)]
    for reader in readers[:3]:
        outgoing.rest(reader, 30)
    outgoing.wake(readers[0])
    outgoing.rest(readers[0], 30)
    outgoing.rest(readers[3], 30)
    assert [reader.gone for reader in readers] == [0, 1, 0, 0]
    assert outgoing.resting_bytes == 90
    outgoing.rest(Resting(), 1000)
    assert outgoing.resting_bytes == 0, "one that is over the limit alone rests with nothing"


async def test_turns_are_counted_and_lent_by_who_takes_long(monkeypatch) -> None:
    outgoing = Outgoing(MIB)
    turns = [outgoing.turn() for _ in range(TURNS)]
    for turn in turns:
        await turn.__aenter__()
    other = asyncio.ensure_future(outgoing.turn().__aenter__())
    await asyncio.sleep(0)
    assert not other.done()
    await turns[0].__aexit__(None, None, None)
    late = await other
    monkeypatch.setattr(of_outgoing, "TURN_SECONDS", 0.001)
    await turns[1].__aexit__(None, None, None)
    slow = await outgoing.turn().__aenter__()
    async with asyncio.timeout(10):  # a planted bug waits for its end
        another = await outgoing.turn().__aenter__()
    for turn in (slow, another, late, *turns[2:]):
        await turn.__aexit__(None, None, None)
    assert outgoing._turns._free == TURNS, "each was given back once"


async def test_readers_of_heavy_clients_have_few_turns_and_light_ones_pass_them(tmp_path) -> None:
    async with serving(tmp_path) as server:
        raws = [await Raw.welcomed(server) for _ in range(HEAVY_TURNS + 2)]
        *heavy, light = server.roster
        for each in heavy:
            each.pace.did(100 * LIGHT)
        light.pace._at -= 1000
        turns = [each.share.turn() for each in heavy]
        for turn in turns[:HEAVY_TURNS]:
            await turn.__aenter__()
        late = asyncio.ensure_future(turns[HEAVY_TURNS].__aenter__())
        async with light.share.turn():
            assert not late.done()
        await turns[0].__aexit__(None, None, None)
        await late
        for turn in turns[1:]:
            await turn.__aexit__(None, None, None)
        for raw in raws:
            await raw.close()


async def test_record_that_is_read_counts_when_it_is_read_and_when_it_is_sent(tmp_path, monkeypatch) -> None:
    async with serving(tmp_path, config=WalConfig(segment_bytes=4 * MIB)) as server, await Raw.welcomed(server) as raw:
        await server.logs[""].append(bytes(2 * MIB))
        (client,), units = server.roster, list[int]()
        did = client.pace.did
        monkeypatch.setattr(Pace, "did", lambda pace, work: (units.append(work), did(work))[1])
        raw.send(Open(1, "read", {}, 1))
        await raw.expect(Records, 1)
        assert [each for each in units if each >= 2 * MIB // BYTES_A_UNIT] == [2 * MIB // BYTES_A_UNIT] * 2


# ---- in a server


async def test_answers_that_nobody_reads_are_bounded(tmp_path) -> None:
    """Sixty thousand PINGs in 420 kB ask for 1.8 MB of PONGs."""
    async with serving(tmp_path) as server, await silent(server) as raw:
        (client,) = server.roster
        raw.send(*(Ping(1) for _ in range(60_000)))
        await until(lambda: client.stuck)
        for _ in range(20):
            await asyncio.sleep(0)
        assert UNSENT_MAX < client.share.unsent < UNSENT_MAX + 64 * KIB
        assert client.share.unsent == server.budget.outgoing.bytes
        raw.writer.transport.resume_reading()
        for _ in range(60_000):
            await raw.expect(Pong)
        await until(lambda: server.budget.outgoing.bytes == 0)


async def test_followers_that_read_nothing_are_bounded_together_and_hold_up_nobody(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(of_duplex, "FULL_SECONDS", 0.05)
    monkeypatch.setattr(of_server, "LOOK_SECONDS", 0.01)
    limits = Limits(pending_total_bytes=MIB)
    async with serving(tmp_path, limits=limits) as server, await Raw.welcomed(server) as good:
        slow = [await silent(server) for _ in range(24)]
        for raw in slow:
            raw.send(Open(1, "follow", {"start": 1}, 1 << 40))
        good.send(Open(1, "follow", {"start": 1}, 1 << 40))
        await good.expect(Result, 1)
        most, got = 0, 0
        for number in range(30):
            await server.logs[""].append_batch([bytes(1000)] * 60)
            while got < (number + 1) * 60:
                got += len((await good.expect(Records, 1)).payloads)
                most = max(most, server.budget.outgoing.bytes)
        assert MIB // 2 < most < MIB + 25 * (UNSENT_MAX // 8), "1.8 MB for each of 25 were asked for"
        for raw in slow:
            await raw.close()


async def test_streams_without_credit_hold_no_readers(tmp_path) -> None:
    """A hundred reads with a byte of credit each on records of 256 KiB, by a client that takes everything."""
    limits = Limits(pending_total_bytes=16 * MIB)
    async with serving(tmp_path, config=BIG, limits=limits) as server, await Raw.welcomed(server) as raw:
        await server.logs[""].append_batch([bytes(256 * KIB)] * 3)
        raw.send(*(Open(id, "read", {}, 1) for id in range(1, 101)))
        for _ in range(100):
            await raw.expect(Records)
        outgoing = server.budget.outgoing
        (client,) = server.roster
        streams = client.sessions._streams.values()
        await until(lambda: all(each._granted is not None for each in streams))
        holding = [each for each in streams if each._source is not None]
        assert len(holding) < 10
        assert outgoing.resting_bytes <= 4 * MIB
        raw.send(Credit(50, 1 << 40))
        assert len((await raw.expect(Records, 50)).payloads) + len((await raw.expect(Records, 50)).payloads) == 2
        await raw.expect(End, 50)
    assert (outgoing.bytes, outgoing.resting_bytes) == (0, 0)


@pytest.mark.parametrize("what", ["read", "follow", "consumer"])
async def test_stream_that_let_go_goes_on_where_it_was(tmp_path, what) -> None:
    """Its reader is dropped whenever it waits: each record comes once, in order, also behind records that are not wanted."""
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        log, topic = server.logs[""], server.logs[""].topic("t")
        for number in range(40):
            await log.append_batch([b"other"] * (number % 3 + 1))
            await topic.append(b"%d" % number)
        outgoing = server.budget.outgoing
        rest = outgoing.rest
        outgoing.rest = lambda reader, cost: (rest(reader, cost), outgoing.wake(reader), reader.let_go())
        args = {"topic": "t", "name": "c"} if what == "consumer" else {"topic": "t"}
        raw.send(Open(1, what, args, 1))
        await raw.expect(Result, 1)
        got: list[bytes] = []
        while len(got) < 40:
            got += (await raw.expect(Records, 1)).payloads
            raw.send(Credit(1, 70))
        assert got == [b"%d" % number for number in range(40)]
        if what == "read":
            await raw.expect(End, 1)
        else:
            await topic.append(b"new")
            assert (await raw.expect(Records, 1)).payloads == [b"new"]
            raw.send(Cancel(1))
            await raw.expect(End, 1)


async def test_follower_that_let_go_begins_again_where_the_log_was_cut(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        log = server.logs[""]
        await log.append_batch([b"%d" % number for number in range(1, 11)])
        raw.send(Open(1, "follow", {"start": 1}, 1))
        await raw.expect(Result, 1)
        assert (await raw.expect(Records, 1)).payloads == [b"1"]
        (client,) = server.roster
        stream = client.sessions._streams[1]
        await until(lambda: stream in server.budget.outgoing._resting)
        stream.let_go()
        await log.truncate_after(1)
        assert (await raw.expect(Result, 1)).value == {"start": 2}
        await log.append(b"anew")
        raw.send(Credit(1, 1 << 30))
        assert (await raw.expect(Records, 1)).payloads == [b"anew"]
