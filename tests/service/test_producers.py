"""Idempotent producers: whatever is repeated gives the same LSNs, and no record is there twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.errors import BadOption, OutcomeUnknown
from walsvc.format import producers as rules
from walsvc.format.group import GROUP_HEADER_BYTES, BadGroup
from walsvc.format.meta import Metadata, decode_map
from walsvc.format.producers import ROW, Producers, Request, RequestRow
from walsvc.log.commit.group import Group, Labels
from walsvc.log.commit.producers import append_request, stream_request
from walsvc.model import Relaxed, Strict
from walsvc.opening import open_on

SMALL = WalConfig(segment_bytes=65536, max_group_bytes=16384)


async def opened(device: SimDevice, config: WalConfig = SMALL) -> Log:
    log: Log = await open_on(SimDisk(device), config)
    return log


async def contents(log: Log) -> list[tuple[int, bytes]]:
    return [(record.lsn, record.payload) async for record in log.read()]


async def pieces(*payloads: bytes) -> AsyncIterator[bytes]:
    for each in payloads:
        yield each


def test_repeated_request_gives_the_same_lsns_also_after_reopening() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        first = await append_request(log.writer.core, [b"a", b"b"], Strict, request=Request(7, 1))
        assert [place.first_lsn for place in first.places] == [1]
        again = await append_request(log.writer.core, [b"a", b"b"], Strict, request=Request(7, 1, since=1))
        assert again.places == first.places
        await log.close()
        log = await opened(device)
        after = await append_request(log.writer.core, [b"a", b"b"], Strict, request=Request(7, 1, since=1))
        assert after.places == first.places
        assert after.durable
        assert await contents(log) == [(1, b"a"), (2, b"b")]
        await log.close()

    run_sim(main, 1)


def test_repeated_request_waits_until_its_records_are_durable() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        await log.append(b"before")
        device.stall_sync(30)
        first = append_request(log.writer.core, [b"a"], Strict, request=Request(7, 1))
        again = append_request(log.writer.core, [b"a"], Strict, request=Request(7, 1, since=1))
        relaxed = append_request(log.writer.core, [b"a"], Relaxed, request=Request(7, 1, since=1))
        assert not (await relaxed).durable
        await asyncio.sleep(20)
        assert not first.done()
        assert not again.done()
        assert (await first).places == (await again).places
        await log.close()

    run_sim(main, 2)


def test_topic_type_and_attributes_go_with_a_request() -> None:
    async def main(seed: int) -> None:
        log = await opened(SimDevice(seed))
        labels = Labels(3, 0, 4)
        packed = b"\x81\xa1k\x07"
        request = Request(7, 1)
        result = await append_request(
            log.writer.core, [packed + b"a", packed + b"bb"], Strict, labels=labels, topic="t", request=request
        )
        records = [record async for record in log.read()]
        assert [(each.payload, each.type, each.topic, each.attributes) for each in records] == [
            (b"a", 3, "t", {"k": 7}),
            (b"bb", 3, "t", {"k": 7}),
        ]
        assert result.places[0].records == 2
        await log.close()

    run_sim(main, 3)


def test_streamed_batch_is_remembered_with_its_last_group_and_found_again_part_by_part() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        payloads = [bytes([n]) * 9000 for n in range(20)]
        await log.append(b"before")
        first = await stream_request(log.writer.core, pieces(*payloads), "t", Request(9, 5))
        assert len(first.places) > 10
        assert len({place.segment_id for place in first.places}) > 1
        for _ in range(2):
            again = await stream_request(log.writer.core, pieces(b"never read"), "t", Request(9, 5, since=1))
            assert again.places == first.places
            await log.close()
            log = await opened(device)
        assert [payload for _, payload in await contents(log)] == [b"before", *payloads]
        await log.truncate_before(log.next_lsn)
        gone = await stream_request(log.writer.core, pieces(), "t", Request(9, 5, since=1))
        assert (gone.places[0].first_lsn, gone.places[0].records) == (2, 20)
        await log.close()

    run_sim(main, 4)


def test_batch_given_up_is_not_remembered() -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(9000)
        raise ValueError("the source has failed")

    async def main(seed: int) -> None:
        log = await opened(SimDevice(seed))
        with pytest.raises(ValueError, match="the source"):
            await stream_request(log.writer.core, source(), None, Request(9, 1))
        result = await stream_request(log.writer.core, pieces(b"now"), None, Request(9, 1, since=1))
        assert await contents(log) == [(result.places[0].first_lsn, b"now")]
        await log.close()

    run_sim(main, 5)


def test_request_cancelled_while_it_waits_for_room_is_accepted_when_repeated_and_only_then() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, WalConfig(segment_bytes=65536, max_group_bytes=8192, max_pending_bytes=8192))
        device.stall_sync(10)
        running = [log.append(bytes(4000)) for _ in range(4)]
        waiting = append_request(log.writer.core, [b"w" * 4000], Strict, request=Request(7, 1))
        waiting.cancel()
        again = append_request(log.writer.core, [b"w" * 4000], Strict, request=Request(7, 1, since=1))
        await asyncio.gather(*running, again)
        assert [payload[:1] for _, payload in await contents(log)] == [b"\0"] * 4 + [b"w"]
        await log.close()

    run_sim(main, 6)


def test_truncate_after_forgets_what_it_cut_and_keeps_the_rest() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        for seq in (1, 2, 3):
            await append_request(log.writer.core, [b"%d" % seq], Strict, request=Request(7, seq, done=1))
        await log.truncate_after(2)
        for _ in range(2):
            kept = await append_request(log.writer.core, [b"2"], Strict, request=Request(7, 2, 1, since=1))
            assert kept.places[0].first_lsn == 2
            await log.close()
            log = await opened(device)
        again = await append_request(log.writer.core, [b"3"], Strict, request=Request(7, 3, 1, since=1))
        assert again.places[0].first_lsn == 3
        assert await contents(log) == [(1, b"1"), (2, b"2"), (3, b"3")]
        await log.close()

    run_sim(main, 7)


def test_rows_go_through_snapshots_of_new_segments() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        await append_request(log.writer.core, [b"early"], Strict, request=Request(7, 1))
        for seq in range(1, 60):
            await append_request(log.writer.core, [bytes(9000)], Strict, request=Request(8, seq, done=seq))
        assert len(log.writer.segments.ids()) > 3
        windows = log.writer.core.metadata.producers
        assert windows.count == 2
        await log.close()
        log = await opened(device)
        assert log.writer.core.metadata.producers == windows
        again = await append_request(log.writer.core, [b"early"], Strict, request=Request(7, 1, since=1))
        assert again.places[0].first_lsn == 1
        await log.close()

    run_sim(main, 8)


def test_many_requests_share_a_group_with_their_rows() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, WalConfig(segment_bytes=1 << 20))
        futures = [append_request(log.writer.core, [b"x"], Strict, request=Request(n, 1)) for n in range(1, 1501)]
        results = await asyncio.gather(*futures)
        assert [result.places[0].first_lsn for result in results] == list(range(1, 1501))
        assert log.stats().groups < 10
        await log.close()
        log = await opened(device)
        assert log.writer.core.metadata.producers.count == 1500
        await log.close()

    run_sim(main, 9)


def test_rows_take_their_room_in_groups_and_snapshots() -> None:
    """Small payloads, so that the rows are most of it, into small segments."""

    async def main(seed: int) -> None:
        log = await opened(SimDevice(seed))
        writer, choices = log.writer, random.Random(seed)
        ends: list[tuple[int, int]] = []
        cut = writer.core.placement.cut

        def cutting() -> Group:
            group = cut()
            ends.append(
                (
                    group.offset + GROUP_HEADER_BYTES + group.body.payload_bytes + len(group.body.rest),
                    group.segment.limit,
                )
            )
            return group

        writer.core.placement.cut = cutting  # type: ignore[method-assign]
        for _ in range(40):
            sizes = [choices.randrange(60) for _ in range(choices.randrange(1, 350))]
            requests = [Request(choices.randrange(1, 50), writer.next_lsn + n) for n in range(len(sizes))]
            await asyncio.gather(
                *(
                    append_request(writer.core, [bytes(size)], Strict, request=request)
                    for size, request in zip(sizes, requests, strict=True)
                )
            )
            state = writer.core.metadata.copy()
            state.topics.fold()
            assert len(state.snapshot()) <= state.snapshot_bytes_max
        assert len(log.writer.segments.ids()) > 10
        assert [each for each in ends if each[0] > each[1]] == []
        await log.close()

    run_sim(main, 12)


def test_payloads_over_a_group_are_refused_and_nothing_is_written() -> None:
    async def main(seed: int) -> None:
        log = await opened(SimDevice(seed))
        with pytest.raises(BadOption, match="more than a group holds"):
            append_request(log.writer.core, [bytes(9000)] * 2, Strict, request=Request(7, 1))
        assert log.next_lsn == 1
        assert (await append_request(log.writer.core, [], Strict, request=Request(7, 1))).places == []
        alone = await append_request(log.writer.core, [bytes(40_000)], Strict, request=Request(7, 1))
        assert alone.places[0].first_lsn == 1
        await log.close()

    run_sim(main, 10)


# ---- the window


def row(lsn: int) -> RequestRow:
    return RequestRow(lsn, 1, 4096, 1, 1)


def test_answered_requests_are_forgotten_and_asking_for_one_is_told() -> None:
    state = Producers()
    for seq in range(1, 6):
        state.note(7, seq, 0, row(seq))
    state.note(7, 6, 4, row(6))
    assert list(state.windows[7].rows) == [4, 5, 6]
    assert state.count == 3
    assert state.find(Request(7, 5, since=1)) == row(5)
    assert state.find(Request(7, 7)) is None
    with pytest.raises(OutcomeUnknown, match="request 3") as told:
        state.find(Request(7, 3, since=3))
    assert told.value.lsn == 3
    assert "read the log" in (told.value.hint or "")


def test_a_producer_has_so_many_requests_at_most(monkeypatch) -> None:
    monkeypatch.setattr(rules, "REQUESTS_MAX", 3)
    state = Producers()
    for seq in range(1, 6):
        state.note(7, seq, 0, row(seq))
    assert list(state.windows[7].rows) == [3, 4, 5]
    with pytest.raises(OutcomeUnknown):
        state.find(Request(7, 2, since=1))


@pytest.mark.parametrize("bound", ["PRODUCERS_MAX", "ROWS_MAX"])
def test_producers_that_were_silent_longest_go_first_and_are_told_apart_from_new_ones(monkeypatch, bound) -> None:
    monkeypatch.setattr(rules, bound, 3)
    state = Producers()
    for lsn, producer in enumerate((1, 2, 3, 1, 4), start=1):
        state.note(producer, lsn, lsn, row(lsn))
    assert list(state.windows) == [3, 1, 4]
    assert state.forgotten == 2
    with pytest.raises(OutcomeUnknown):
        state.find(Request(2, 2, since=2))
    assert state.find(Request(2, 9)) is None, "a first attempt is never in doubt"
    assert state.find(Request(5, 1, since=3)) is None, "first tried after the last one that was forgotten"
    again = Metadata()
    again.apply(decode_map(Metadata(producers=state).snapshot()), snapshot=True)
    assert again.producers == state


def test_rows_that_are_cut_are_refused() -> None:
    with pytest.raises(BadGroup, match="rows of producers"):
        Producers().apply(ROW.pack(*range(1, 9))[:-1])


# ---- crashes


class Client:
    """Sends requests, and sends again what was not answered when the server came back, in order."""

    def __init__(self, number: int, choices: random.Random) -> None:
        self.number = number
        self.choices = choices
        self.next_seq = 1
        self.open: dict[int, tuple[str, list[bytes], int]] = {}  # kind, payloads, next_lsn when it was sent first
        self.told: dict[int, tuple[int, int]] = {}  # first LSN and how many
        self.futures: list[asyncio.Future[Any]] = []

    def frozen(self) -> Client:
        """What it knows at this moment."""
        copy = Client(self.number, self.choices)
        copy.next_seq, copy.open, copy.told = self.next_seq, dict(self.open), dict(self.told)
        return copy

    def send(self, log: Log, seq: int, *, again: bool) -> None:
        kind, payloads, since = self.open[seq]
        request = Request(self.number, seq, min(self.open), since if again else 0)
        future: Any
        if kind == "stream":
            future = stream_request(log.writer.core, pieces(*payloads), None, request)
        else:
            future = append_request(log.writer.core, payloads, Strict, request=request)
        future.add_done_callback(lambda done: self.answered(seq, done))
        self.futures.append(future)

    def answered(self, seq: int, done: asyncio.Future[Any]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        places = done.result().places
        self.told[seq] = (places[0].first_lsn, sum(each.records for each in places))
        del self.open[seq]

    def begin(self, log: Log) -> None:
        seq, self.next_seq = self.next_seq, self.next_seq + 1
        kind = self.choices.choice(["group", "group", "group", "stream"])
        payloads = [b"%d/%d/%d " % (self.number, seq, part) for part in range(self.choices.randrange(1, 6))]
        if kind == "stream":
            payloads = [each + bytes(7000) for each in payloads]
        self.open[seq] = (kind, payloads, log.next_lsn)
        self.send(log, seq, again=False)


class Moment(NamedTuple):
    """The power goes here: the device, and what the clients had been told."""

    device: SimDevice
    clients: list[Client]


async def life(device: SimDevice, clients: list[Client], turns: int) -> list[Moment]:
    """One life of the server: what is open is repeated, more is begun, all of it is answered. Returns every moment."""
    moments: list[Moment] = []
    log = await opened(device)
    device.on_operation = lambda _number, _name: moments.append(
        Moment(device.fork(), [client.frozen() for client in clients])
    )
    for client in clients:
        for seq in sorted(client.open):
            client.send(log, seq, again=True)
    for _ in range(turns):
        for client in clients:
            client.begin(log)
        await asyncio.sleep(0.001)
    await asyncio.gather(*(future for client in clients for future in client.futures))
    device.on_operation = None
    await log.close()
    return moments


async def recovered(image: SimDevice, clients: list[Client]) -> int:
    """Open what a crash left, repeat, and compare with what was ever said; returns how many requests had to be repeated."""
    repeated = sum(len(client.open) for client in clients)
    await life(image, clients, 0)
    log = await opened(image)
    found = {payload.split(b" ")[0]: lsn for lsn, payload in await contents(log)}
    assert len(found) == log.next_lsn - 1, "a record is there twice"
    for client in clients:
        assert sorted(client.told) == list(range(1, client.next_seq)), "not all was answered"
        for seq, (lsn, count) in client.told.items():
            places = [found[b"%d/%d/%d" % (client.number, seq, part)] for part in range(count)]
            assert places == list(range(lsn, lsn + count)), "the answer names other LSNs"
    assert log.next_lsn - 1 == sum(count for client in clients for _, count in client.told.values())
    await log.close()
    return repeated


def test_crash_at_every_operation_and_repeating_what_was_not_answered_gives_each_record_once() -> None:
    """Between append and acknowledgement the power is cut at every operation, in up to three states each."""
    images = repeated = 0
    looks: dict[tuple[object, ...], int] = {}  # an image of which the clients know the same is looked at once
    for seed in range(3):
        clients = [Client(number, random.Random(100 * seed + number)) for number in (1, 2, 3)]
        for moment in run_sim(lambda number: life(SimDevice(number), clients, 4), seed):  # noqa: B023
            for image in moment.device.crash_states(3):
                images += 1
                known = [client.frozen() for client in moment.clients]
                key = seed, image.fingerprint(), repr([(client.next_seq, client.open, client.told) for client in known])
                if key not in looks:
                    looks[key] = run_sim(lambda _: recovered(image, known), seed)  # noqa: B023
                repeated += looks[key]
    assert images > 100
    assert repeated > images


def test_kill_at_any_operation_and_repeating_gives_each_record_once() -> None:
    clients = [Client(number, random.Random(number)) for number in (1, 2, 3)]
    for moment in run_sim(lambda number: life(SimDevice(number), clients, 4), 11):
        known = [client.frozen() for client in moment.clients]
        moment.device.kill()
        assert run_sim(lambda _: recovered(moment.device, known), 11) >= 0  # noqa: B023
