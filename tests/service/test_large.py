"""Large batches: the log gets one when all of it is here, and few at a time, so no client holds up the others by its own pace."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

import pytest

from tests.service.raw import Raw
from tests.service.simulated import serving
from tests.waiting import until
from walsvc import WalConfig
from walsvc.log.commit.batch_source import Cutter
from walsvc.log.commit.entries import Packed, Pieces
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import Bounds
from walsvc.service.server.large import WRITTEN_MAX, Large
from walsvc.service.server.limits import Limits
from walsvc.service.server.progress import TIGHT_BYTES_PER_SECOND, TIGHT_SECONDS
from walsvc.service.wire.frames import Ack, Batch, Error, Ping, Pong

KIB = 1 << 10
GROUPS = WalConfig(segment_bytes=65536, max_group_bytes=8 * KIB)


class Sender:
    """A connection that notes whether it is heard."""

    heard = True

    def hold_back(self) -> None:
        self.heard = False

    def let_on(self) -> None:
        self.heard = True


async def test_batch_whose_end_does_not_come_holds_up_nobody(tmp_path) -> None:
    async with serving(tmp_path, config=GROUPS) as server, await Raw.welcomed(server) as good:
        slow = await Raw.welcomed(server)
        slow.send(*(Batch(1, 0, 0, 0, 0, None, part, False, [bytes(5 * KIB)] * 4) for part in range(3)), Ping(2))
        await slow.expect(Pong, 2)
        good.append(1, b"x")
        assert (await good.expect(Ack, 1)).parts[0][0] == 1
        slow.send(Batch(1, 0, 0, 0, 0, None, 3, True, [b"end"]))
        assert [(await slow.expect(Ack, 1)).parts[0][0], server.logs[""].next_lsn] == [2, 15]
        slow.send(*(Batch(3, 0, 0, 0, 0, None, part, False, [bytes(5 * KIB)] * 4) for part in range(3)), Ping(4))
        await slow.expect(Pong, 4)
        await slow.close()
        await until(lambda: server.status().pending_bytes == 0)
        assert server.logs[""].next_lsn == 15


async def test_batch_waits_for_its_turn_and_what_its_client_says_behind_it_comes_behind_it(tmp_path) -> None:
    async with serving(tmp_path, config=GROUPS) as server, await Raw.welcomed(server) as good:
        large, others = server.shared.large, [object() for _ in range(WRITTEN_MAX)]
        for other in others:
            large.give(other, server.logs[""], Sender(), lambda: None)
        raw = await Raw.welcomed(server)
        raw.send(Batch(1, 0, 0, 0, 0, None, 0, True, [bytes(5 * KIB)] * 4))
        raw.append(2, b"behind it")
        await until(lambda: any(not each.reading for each in server.roster))
        good.append(1, b"between")
        assert (await good.expect(Ack, 1)).parts[0][0] == 1
        large.leave(others[0])
        lsns = {}
        while len(lsns) < 2:
            ack = await raw.expect(Ack)
            lsns[ack.id] = ack.parts[0][0]
        assert lsns == {1: 2, 2: 6}
        large.leave(others[1])
        assert large.written == 0
        await raw.close()


async def test_what_waits_for_its_turn_is_answered_when_the_server_stops(tmp_path) -> None:
    async with serving(tmp_path, config=GROUPS) as server:
        for other in range(WRITTEN_MAX):
            server.shared.large.give(other, server.logs[""], Sender(), lambda: None)
        raw = await Raw.welcomed(server)
        raw.send(Batch(1, 0, 0, 0, 0, None, 0, True, [bytes(5 * KIB)] * 4))
        await until(lambda: any(not each.reading for each in server.roster))
        await server.stop()
        assert (await raw.expect(Ack, 1)).parts[0][0] == 1
        await raw.close()


async def test_few_batches_are_given_to_a_log_at_a_time_and_each_log_has_its_own() -> None:
    large, given = Large(9, 1 << 20), list[int]()
    senders = [Sender() for _ in range(6)]
    for number, sender in enumerate(senders):
        large.give(number, "one", sender, partial(given.append, number))
    large.give(10, "other", Sender(), partial(given.append, 10))
    assert given == [0, 1, 10]
    assert [each.heard for each in senders] == [True, True, False, False, False, False]
    large.leave(3)  # given up
    assert senders[3].heard
    large.leave(0)
    large.leave(0)
    assert given == [0, 1, 10, 2]
    assert senders[2].heard
    large.leave(1)
    large.leave(2)
    assert given == [0, 1, 10, 2, 4, 5]


async def test_who_finds_no_place_is_not_heard_until_one_is_free() -> None:
    large = Large(2, 4 << 20)
    senders = [Sender() for _ in range(5)]
    for number, sender in enumerate(senders):
        large.gather(number, sender)
        large.gather(number, sender)
    assert [each.heard for each in senders] == [True, True, False, False, False]
    assert large.crowded_since is not None
    now = large.crowded_since
    limit = TIGHT_SECONDS + 4 * (1 << 20) / TIGHT_BYTES_PER_SECOND
    assert [large.late(each, now + limit - 1) for each in range(5)] == [False] * 5
    assert [large.late(each, now + limit + 1) for each in range(5)] == [True, True, False, False, False]
    large.leave(0)
    assert senders[2].heard
    large.leave(3)
    large.leave(1)
    assert (senders[3].heard, senders[4].heard, large.waiting, large.crowded_since) == (True, True, 0, None)
    assert not large.late(2, now + 1000), "nobody waits"


async def test_who_keeps_a_place_that_others_wait_for_is_ended(tmp_path) -> None:
    limits = Limits(pending_bytes=64 * KIB, pending_total_bytes=64 * KIB)
    async with serving(tmp_path, config=GROUPS, limits=limits) as server:
        slow, other = await Raw.welcomed(server), await Raw.welcomed(server)
        begin = Batch(1, 0, 0, 0, 0, None, 0, False, [bytes(5 * KIB)] * 3)
        slow.send(begin)
        await until(lambda: len(server.shared.large._places) == 1)
        other.send(begin)
        await until(lambda: server.shared.large.waiting == 1)
        server.shared.large.crowded_since -= 1000  # type: ignore[operator]
        server.shared.large._places = dict.fromkeys(server.shared.large._places, 0.0)
        assert await slow.ended()
        assert server.status().rejected == {"timeout": 1}
        other.send(Batch(1, 0, 0, 0, 0, None, 1, True, [b"end"]))
        assert (await other.expect(Ack, 1)).parts[0][0] == 1
        for each in (slow, other):
            await each.close()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"types": 70_000}, "type=70000"),
        ({"attributes": b"\xc1"}, "msgpack"),
        ({"payloads": [bytes(9 * KIB)]}, "payloads[4]"),
        ({"payloads": [bytes(4 * KIB)] * 16}, "more than 65536 bytes"),
    ],
)
async def test_batch_that_is_wrong_is_refused_when_that_has_come(tmp_path, fields: dict[str, Any], says: str) -> None:
    """Before the log has it: nobody waits for what will be given up."""
    config = WalConfig(segment_bytes=65536, max_group_bytes=8 * KIB, max_batch_bytes=64 * KIB, max_record_bytes=8 * KIB)
    async with serving(tmp_path, config=config) as server, await Raw.welcomed(server) as raw:
        raw.send(Batch(1, 0, 0, 0, 0, None, 0, False, [bytes(3 * KIB)] * 4))
        raw.send(Batch(1, 0, 0, 0, 0, None, 1, False, [b"x"])._replace(**fields))
        assert says in (await raw.expect(Error, 1)).message
        raw.send(Batch(1, 0, 0, 0, 0, None, 2, True, [b"late"]))
        raw.append(2, b"good")
        assert (await raw.expect(Ack, 2)).parts[0][0] == 1
        assert server.status().pending_bytes == 0


def test_records_are_cut_into_the_same_pieces_together_as_one_by_one() -> None:
    rng = random.Random(16)
    for _ in range(50):
        config = WalConfig(max_group_bytes=4 * KIB, max_group_records=rng.choice([3, 50, 10_000]))
        bounds = Bounds(config, "log")
        singly, together = Cutter(bounds, Pieces()), Cutter(bounds, Pieces())
        of_singly: list[Pieces] = []
        of_together: list[Pieces] = []
        for _ in range(rng.randrange(1, 6)):
            payloads = [bytes(rng.choice([0, 1, 100, 3000, 5000])) for _ in range(rng.randrange(1, 200))]
            if rng.random() < 0.3:
                labelled = Packed(b"labelled", Labels(7))
                of_singly += filter(None, (singly.add(labelled),))
                of_together += filter(None, (together.add(labelled),))
            of_singly += filter(None, map(singly.add, payloads))
            of_together += together.extend(payloads, sum(map(len, payloads)))
        pieces = [
            [(each.payloads, each.labels) for each in (*cut, last)]
            for cut, last in ((of_singly, singly.open), (of_together, together.open))
        ]
        assert pieces[0] == pieces[1]


async def test_batch_of_many_empty_records_takes_a_part_in_each_turn_of_the_loop(tmp_path, monkeypatch) -> None:
    """And no line of Python for each record."""
    steps, turns = [0], [0]
    add = Cutter.add
    monkeypatch.setattr(Cutter, "add", lambda cut, item: (steps.__setitem__(0, steps[0] + 1), add(cut, item))[1])
    async with serving(tmp_path, config=WalConfig(segment_bytes=1 << 20)) as server, await Raw.welcomed(server) as raw:
        parts = [Batch(1, 0, 0, 0, 0, None, part, part == 7, [b""] * 8192) for part in range(8)]
        raw.send(*parts[:-1], Ping(2))
        await raw.expect(Pong, 2)
        going = True

        def turn() -> None:
            turns[0] += going
            asyncio.get_running_loop().call_soon(turn) if going else None

        turn()
        raw.send(parts[-1])
        assert sum(each[1] for each in (await raw.expect(Ack, 1)).parts) == 65_536
        going = False
    assert turns[0] >= 8
    assert steps[0] <= 64, "65,536 records"
