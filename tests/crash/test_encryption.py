"""Encrypted logs under damage, forgery and power cuts. `python -m tests.crash.explore --encrypted` goes on without end."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest
from crc32c import crc32c
from cryptography.hazmat.primitives.ciphers import aead

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.errors import Corruption, MissingKey, WalError, WrongKey
from walsvc.format.group import CRCS_OFFSET, GROUP_HEADER_BYTES, HEADER_CRC, BadGroup, Flag, GroupHeader
from walsvc.format.segment import decode_segment_header, encode_segment_header, parse_name
from walsvc.keyring import KeyRing
from walsvc.log.commit.ack import all_done
from walsvc.log.read.stream import GroupStream, open_stream
from walsvc.opening import open_on

from .damage import (
    ClosedLog,
    content,
    disk_of,
    groups,
    overwrite,
    rotated,
    small,
    told_by_opening,
    told_by_reading,
    told_by_verify,
)
from .explorer import Effort, Explorer
from .plan import SEGMENT_BYTES, Plan, ring
from .sampling import WHOLE, sampled, share
from .workload import observe

KEYS = ring(0)
PLACES = 9  # one in so many bytes is damaged
WRITTEN_ON = 0.4 if WHOLE else 0.15  # share of the states of the exploration
STATES = 600


@pytest.fixture(name="explorer")
def fixture_explorer() -> Iterator[Explorer]:
    explorer = Explorer()
    yield explorer
    explorer.close()


# ---- damage


def flip_and_look(explorer: Explorer, log: ClosedLog, name: str, offset: int, bit: int) -> str:
    """Flip one bit of a copy; what the readers say."""
    device = log.device.fork()
    device.flip(name, offset, bit)
    told = explorer.run(told_by_reading(device, log.entries, KEYS))
    if told == "clean" and not explorer.run(told_by_verify(device, KEYS)):
        told = "found by verify"
    return told


def look_at_flips(explorer: Explorer, log: ClosedLog, bits: Iterable[tuple[str, int, int]]) -> Counter[str]:
    """Flip each of these bits alone; none may go unnoticed, and `told_by_reading` refuses any other payload."""
    told: Counter[str] = Counter()
    for name, offset, bit in bits:
        result = flip_and_look(explorer, log, name, offset, bit)
        assert result != "clean", f"{name}, offset {offset}, bit {bit}: not detected"
        told[result] += 1
    return told


def every_bit(log: ClosedLog) -> Iterator[tuple[str, int, int]]:
    """Every bit in use: python -m tests.crash.test_encryption"""
    for name in log.segments:
        for offset in range(groups(log.device, name)[-1].end):
            for bit in range(8):
                yield name, offset, bit


def one_bit_of_each_byte(log: ClosedLog) -> Iterator[tuple[str, int, int]]:
    """One bit of every byte in use, segment headers' unused bytes left to the test of plain logs."""
    rng = random.Random(1)
    for name in (log.segments[0], log.segments[-1]):
        for offset in [*range(200), *range(4096, groups(log.device, name)[-1].end)]:
            yield name, offset, rng.randrange(8)


def test_every_byte_with_a_flipped_bit_is_an_error_and_never_another_payload(explorer: Explorer) -> None:
    log = explorer.run(small(KEYS, rounds=1))
    assert len(log.segments) >= 2
    assert explorer.run(told_by_reading(log.device.fork(), log.entries, KEYS)) == "clean"
    assert explorer.run(told_by_verify(log.device.fork(), KEYS))
    told = look_at_flips(explorer, log, sampled(one_bit_of_each_byte(log), PLACES))
    assert told["Corruption"] > share(2_000, PLACES)


# ---- forgery: whoever can write the files, but has no key


class Forger:
    """Changes an encrypted log's files and makes every CRC and every link of the chain right again."""

    def __init__(self, log: ClosedLog) -> None:
        self.device = log.device.fork()
        self.entries = log.entries

    def put(self, name: str, group: GroupHeader, data: bytes) -> None:
        """Put bytes in a group's place, then mend the CRCs from there to the segment's end."""
        overwrite(self.device, name, group.offset, data)
        self.mend(name, group.offset)

    def mend(self, name: str, offset: int) -> None:
        """CRCs and chain from the group at `offset` on."""
        file = bytearray(content(self.device, name))
        previous: int | None = None
        while file[offset : offset + 4] == b"wGRP":
            payload_bytes = int.from_bytes(file[offset + 76 : offset + 80], "little")
            end = offset + int.from_bytes(file[offset + 88 : offset + 92], "little")
            middle = offset + GROUP_HEADER_BYTES + payload_bytes
            if previous is not None:
                file[offset + 92 : offset + 96] = HEADER_CRC.pack(previous)
            at = offset + CRCS_OFFSET
            file[at : at + 4] = HEADER_CRC.pack(crc32c(bytes(file[offset + GROUP_HEADER_BYTES : middle])))
            file[at + 4 : at + 8] = HEADER_CRC.pack(crc32c(bytes(file[middle:end])))
            previous = crc32c(bytes(file[offset : offset + 124]))
            file[offset + 124 : offset + 128] = HEADER_CRC.pack(previous)
            offset = end
        overwrite(self.device, name, 0, bytes(file))

    def told(self, explorer: Explorer) -> str:
        """What reading says; it never returns other payloads, or fewer."""
        told = explorer.run(told_by_reading(self.device, self.entries, KEYS))
        assert explorer.run(told_by_opening(self.device.fork(), KEYS)) in ("Corruption", "opened")
        return told


def body(device: SimDevice, name: str, group: GroupHeader) -> bytes:
    """A group's bytes behind its header."""
    return content(device, name)[group.offset + GROUP_HEADER_BYTES : group.end]


@pytest.fixture(name="forged")
def fixture_forged(explorer: Explorer) -> Forger:
    return Forger(explorer.run(rotated(30, KEYS)))


def records_of(device: SimDevice, name: str) -> list[GroupHeader]:
    return [each for each in groups(device, name) if each.records]


def test_ciphertext_of_another_group_is_refused(explorer: Explorer, forged: Forger) -> None:
    names = sorted(name for name in forged.device.directory.names if parse_name(name, ".wal") is not None)
    by_size: dict[int, list[tuple[str, GroupHeader]]] = {}
    for name in names:
        for group in records_of(forged.device, name):
            by_size.setdefault(group.payload_bytes, []).append((name, group))
    pairs = [each[:2] for each in by_size.values() if len(each) > 1]
    within = [(one, other) for one, other in pairs if one[0] == other[0]]
    assert within
    for (name, group), (source, other) in pairs:
        forger = Forger(ClosedLog(forged.device, forged.entries))
        nonce = content(forged.device, source)[other.offset + 96 : other.offset + 108]
        head = content(forged.device, name)[group.offset : group.offset + GROUP_HEADER_BYTES]
        head = head[:96] + nonce + head[108:]
        forger.put(name, group, head + body(forged.device, source, other))
        assert forger.told(explorer) == "Corruption"


def test_whole_group_moved_to_another_place_is_refused_even_with_its_fields_adapted(
    explorer: Explorer, forged: Forger
) -> None:
    """Position, LSN, generation and segment are put right in the header, as well as all CRCs."""
    log = ClosedLog(forged.device, forged.entries)
    first, second = log.segments[:2]
    for source in (records_of(log.device, first)[5], records_of(log.device, first)[6]):
        for name in (first, second):
            target = next(each for each in records_of(log.device, name) if each.group_bytes >= source.group_bytes)
            if (target.segment, target.offset) == (source.segment, source.offset):
                continue
            data = bytearray(content(log.device, first)[source.offset : source.end])
            original = content(log.device, name)[target.offset : target.end]
            data[16:64] = original[16:64]  # generation, segment, offset, LSNs, batch
            data[92:96] = original[92:96]
            forger = Forger(log)
            forger.put(name, target, bytes(data))
            assert forger.told(explorer) == "Corruption"


def test_segment_of_another_log_under_the_same_key_is_refused(explorer: Explorer, forged: Forger) -> None:
    """The forger makes the other log's segment say that it is of this one, in every header, with right CRCs."""
    other = explorer.run(rotated(30, KEYS))
    log_id = forged.device and decode_segment_header(content(forged.device, other.segments[0])).log_id
    name = other.segments[1]
    foreign = bytearray(content(other.device, name))
    header = decode_segment_header(bytes(foreign))._replace(log_id=log_id ^ 1)
    foreign[:4096] = encode_segment_header(header)
    overwrite(forged.device, name, 0, bytes(foreign))
    for group in groups(other.device, name):
        overwrite(forged.device, name, group.offset + 8, (log_id ^ 1).to_bytes(8, "little"))
    with closing(Explorer()) as another:
        assert another.run(told_by_reading(forged.device, forged.entries, KEYS)) == "Corruption"


def test_altered_segment_header_does_not_pass(explorer: Explorer, forged: Forger) -> None:
    log = ClosedLog(forged.device, forged.entries)
    for name in log.segments:
        header = decode_segment_header(content(log.device, name))
        for change in (
            {"previous_end": header.previous_end + 512},
            {"created_ns": 1},
            {"optional": header.optional ^ 1},
        ):
            forger = Forger(log)
            encoded = encode_segment_header(header._replace(**change))
            overwrite(forger.device, name, 0, encoded)
            first = groups(log.device, name)[0]
            overwrite(forger.device, name, first.offset + 92, encoded[-4:])
            forger.mend(name, first.offset)
            assert forger.told(explorer) == "Corruption"


def test_forged_group_is_no_torn_tail_and_opening_changes_nothing(explorer: Explorer, forged: Forger) -> None:
    """The last group with records, the closing mark removed: a plain log would drop it if its CRC were wrong."""
    log = ClosedLog(forged.device, forged.entries)
    name = log.segments[-1]
    last = records_of(log.device, name)[-1]
    data = bytearray(content(log.device, name)[last.offset : last.end])
    data[GROUP_HEADER_BYTES] ^= 1
    forger = Forger(log)
    overwrite(forger.device, name, last.end, bytes(len(content(log.device, name)) - last.end))
    forger.put(name, last, bytes(data))
    assert explorer.run(told_by_opening(forger.device, KEYS)) == "Corruption"


def test_refused_group_stays_refused_when_it_is_read_again(explorer: Explorer, forged: Forger) -> None:
    log = ClosedLog(forged.device, forged.entries)
    name = log.segments[0]
    group = next(each for each in records_of(log.device, name)[3:] if each.payload_bytes)
    data = bytearray(content(log.device, name)[group.offset : group.end])
    data[GROUP_HEADER_BYTES] ^= 1
    forged.put(name, group, bytes(data))

    async def scenario() -> None:
        length = len(content(forged.device, name))
        _, stream = await open_stream(disk_of(forged.device, lock=False), name, group.segment, length, KEYS)
        assert isinstance(stream, GroupStream)
        while stream.chain.offset < group.offset:
            await stream.next()
        for _ in range(3):
            with pytest.raises(Corruption, match="authentication failed") as caught:
                await stream.next()
            assert (caught.value.offset, caught.value.lsn) == (group.offset, group.first_lsn)
        with pytest.raises(BadGroup):
            stream.cipher.open_group(group, bytes(data))  # type: ignore[union-attr]

    explorer.run(scenario())


@pytest.mark.parametrize("keys", [None, KeyRing(("other", bytes(32))), KeyRing(("key 0", bytes(31) + b"x"))])
def test_missing_or_wrong_key_is_told_and_leaves_the_device_as_it_was(explorer: Explorer, keys: KeyRing | None) -> None:
    """Also where recovery would have something to write: no mark of a clean close, a torn tail."""
    log = explorer.run(rotated(15, KEYS))
    expected = WrongKey if keys is not None and keys.current_id == "key 0" else MissingKey
    name = log.segments[-1]
    closing_mark = groups(log.device, name)[-1]
    assert closing_mark.flags & Flag.CLOSE
    torn = log.device.fork()
    overwrite(torn, name, closing_mark.offset + 64, bytes(64))

    async def scenario(device: SimDevice) -> None:
        before = device.fingerprint()
        for read_only in (False, True):
            config = WalConfig(segment_bytes=SEGMENT_BYTES, block_bytes=512, keys=keys, read_only=read_only)
            with pytest.raises(expected, match="'key 0'"):
                await open_on(disk_of(device), config)
            assert device.fingerprint() == before
        again = await open_on(disk_of(device), WalConfig(segment_bytes=SEGMENT_BYTES, block_bytes=512, keys=KEYS))
        assert (await observe(again)).entries == log.entries
        await again.close()

    for device in (log.device.fork(), torn):
        explorer.run(scenario(device))


# ---- nonces


class Census:
    """Stands for the library's AESGCM and sees every nonce of every key."""

    seen: Counter[tuple[bytes, bytes]]
    places: Counter[tuple[bytes, bytes]]  # key, and segment, offset and LSN of the group

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._real = REAL(key)

    def encrypt_into(self, nonce: bytes, data: Any, associated: Any, buffer: Any) -> int:
        Census.seen[self._key, nonce] += 1
        Census.places[self._key, bytes(associated[24:48])] += 1
        return self._real.encrypt_into(nonce, data, associated, buffer)

    def decrypt_into(self, nonce: bytes, data: Any, associated: Any, buffer: Any) -> int:
        return self._real.decrypt_into(nonce, data, associated, buffer)


REAL = aead.AESGCM


@pytest.fixture(name="census")
def fixture_census(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[bytes, bytes]]:
    Census.seen, Census.places = Counter(), Counter()
    monkeypatch.setattr(aead, "AESGCM", Census)
    return Census.seen


def repeats(census: Counter[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [each for each, count in census.items() if count > 1]


def test_no_nonce_twice_over_restarts_torn_tails_truncation_and_retried_batches(census: Counter[Any]) -> None:
    """Everything that writes another group to a place where one was: the same LSN, the same offset, under the same key."""
    config = WalConfig(segment_bytes=SEGMENT_BYTES, keys=KEYS, max_group_bytes=4096, relaxed_interval=None)

    async def life(device: SimDevice) -> SimDevice:
        log: Log = await open_on(SimDisk(device), config)
        await asyncio.gather(*(log.append(b"x" * 500) for _ in range(20)))
        await log.truncate_after(log.next_lsn - 5)
        batch = log.append_batch([b"batch"] * 2000)
        await asyncio.sleep(0)
        batch.cancel()
        await all_done([batch])
        await log.append_batch([b"batch"] * 2000)
        torn = log.append(b"y" * 3000)
        await asyncio.sleep(0)
        image = device.fork().crash()  # while it is on its way
        await torn
        await log.close()
        return image

    async def lives(_: int) -> None:
        device = SimDevice(3)
        for _ in range(10):
            device = await life(device)
        log = await open_on(SimDisk(device), config)
        await log.close()

    run_sim(lives, 3)
    assert len({key for key, _ in census}) > 10
    assert sum(census.values()) > 200
    assert max(Census.places.values()) > 1, "nothing was written twice to one place"
    assert repeats(census) == []


def test_same_log_continued_twice_from_one_copy_uses_other_nonces(census: Counter[Any]) -> None:
    """A snapshot of a machine that is started twice: place, LSN, generation and key are the same, the nonces are not."""
    config = WalConfig(segment_bytes=SEGMENT_BYTES, keys=KEYS)

    async def scenario(_: int) -> None:
        device = SimDevice(4)
        log = await open_on(SimDisk(device), config)
        await log.append(b"before")
        await log.close()
        made = []
        for payload in (b"one", b"two"):
            copy = device.fork()
            again = await open_on(SimDisk(copy), config)
            result = await again.append(payload)
            made.append((result.segment_id, result.offset, result.lsn))
            await again.close()
        assert made[0] == made[1]

    run_sim(scenario, 4)
    assert max(Census.places.values()) > 1
    assert repeats(census) == []


# ---- power cuts


@pytest.mark.timeout(300)
def test_power_cut_keeps_what_was_acknowledged_in_encrypted_logs_that_change_keys(census: Counter[Any]) -> None:
    seed = 1
    with closing(
        Explorer(Effort(lives=2, steps=14, states=3, go_on_share=WRITTEN_ON), draw=Plan.draw_encrypted)
    ) as explorer:
        while seed <= 3 or len(explorer.tally.states) < STATES:  # the third has the double-write file
            explorer.explore(seed)
            seed += 1
        assert len(explorer.tally.states) >= STATES
        assert explorer.tally.recovery_points > 0
    assert len(census) > 1000


def test_cut_between_the_first_segment_under_a_new_key_and_the_seal_of_the_old_one(explorer: Explorer) -> None:
    """At every operation of use_keys: opening with both keys goes on, with the old one only it says which is missing."""
    config = WalConfig(segment_bytes=SEGMENT_BYTES, keys=ring(0))
    only_old = dataclasses.replace(config, keys=KeyRing(("key 0", bytes([0]) * 32)))
    images: list[SimDevice] = []

    async def scenario() -> None:
        device = SimDevice(5)
        log = await open_on(SimDisk(device, latency=0.0), config)
        await log.append(b"under the old key")
        device.on_operation = lambda *_: images.append(device.fork())
        await log.use_keys(ring(1))
        await log.append(b"under the new key")
        device.on_operation = None
        await log.close()

    async def look(device: SimDevice, wanted: WalConfig) -> list[bytes]:
        log = await open_on(SimDisk(device, latency=0.0), wanted)
        payloads = [entry.payload for entry in (await observe(log)).entries]
        await log.close()
        return payloads

    explorer.run(scenario())
    told: Counter[str] = Counter()
    for image in images:
        for state in image.crash_states(6):
            fork = state.fork()
            before = fork.fingerprint()
            try:
                explorer.run(look(fork, only_old))
                told["opened"] += 1
            except WalError as error:
                told[type(error).__name__] += 1
                assert fork.fingerprint() == before
            assert explorer.run(look(state, config))[:1] == [b"under the old key"]
    assert set(told) == {"opened", "MissingKey"}


if __name__ == "__main__":
    with closing(Explorer()) as all_bits:
        damaged = all_bits.run(small(KEYS, rounds=1))
        print(look_at_flips(all_bits, damaged, every_bit(damaged)))
