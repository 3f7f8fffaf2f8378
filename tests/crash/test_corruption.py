"""Damage to a closed log: it is detected, named, and changes nothing; other data is never returned."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice
from walsvc.errors import Corruption, UnsupportedFormat
from walsvc.format.chain import Chain
from walsvc.format.group import GROUP_HEADER_BYTES, GROUP_MAGIC, BadGroup, GroupHeader
from walsvc.format.segment import (
    SEGMENT_HEADER_BYTES,
    BadSegment,
    decode_segment_header,
    encode_segment_header,
    segment_name,
    spare_name,
)
from walsvc.opening import open_on

from .damage import (
    BLOCK,
    CONFIG,
    ClosedLog,
    content,
    disk_of,
    groups,
    overwrite,
    rename,
    rotated,
    small,
    told_by_opening,
    told_by_reading,
    told_by_verify,
)
from .explorer import Explorer
from .model import Entry
from .sampling import sampled
from .workload import observe

PLACES = 15  # the checks look at all, a reader of the whole log at one in so many; odd, so that any bit has its turn
Scenario = Callable[[], Awaitable[None]]


@pytest.fixture(name="explorer")
def fixture_explorer() -> Iterator[Explorer]:
    explorer = Explorer()
    yield explorer
    explorer.close()


@pytest.fixture(name="log")
def fixture_log(explorer: Explorer) -> ClosedLog:
    return explorer.run(rotated())


def flip_and_look(explorer: Explorer, log: ClosedLog, name: str, offset: int, bit: int) -> str:
    """Flip one bit of a copy; what the readers say."""
    device = log.device.fork()
    device.flip(name, offset, bit)
    told = explorer.run(told_by_reading(device, log.entries))
    if told == "clean" and not explorer.run(told_by_verify(device)):
        told = "found by verify"
    return told


@pytest.mark.parametrize("which", [0, 2, -1])
def test_every_byte_in_use_with_a_flipped_bit_is_detected_and_nothing_else_is_returned(
    explorer: Explorer, which: int
) -> None:
    log = explorer.run(small())
    assert len(log.segments) >= 3
    assert explorer.run(told_by_reading(log.device.fork(), log.entries)) == "clean"
    assert explorer.run(told_by_verify(log.device.fork()))
    rng = random.Random(which)
    told: Counter[str] = Counter()
    name = log.segments[which]
    intact = groups(log.device, name)
    for offset in range(intact[-1].end):
        assert noticed(log.device, name, intact, offset, rng.randrange(8)), f"{name}, offset {offset}: not detected"
    for offset in sampled(range(intact[-1].end), PLACES):
        result = flip_and_look(explorer, log, name, offset, rng.randrange(8))
        assert result != "clean", f"{name}, offset {offset}: not detected"
        told[result] += 1
    print(dict(told))
    assert told["Corruption"] > 3 * told.total() // 4


def noticed(device: SimDevice, name: str, intact: list[GroupHeader], offset: int, bit: int) -> bool:
    """Whether the check of a segment's header, or of the group at that place, refuses a flipped bit."""
    data = bytearray(content(device, name))
    header, at = decode_segment_header(data), bisect_right(intact, offset, key=lambda group: group.offset) - 1
    data[offset] ^= 1 << bit
    try:
        decode_segment_header(data)
        before = intact[at - 1] if at > 0 else None
        chain = Chain.begin(header, data[:SEGMENT_HEADER_BYTES], len(data))
        if before is not None:
            chain.generation, chain.offset = before.generation, before.end
            chain.next_lsn, chain.previous_crc = before.next_lsn, before.header_crc
        chain.check(data, 0)
    except (BadSegment, BadGroup):
        return True
    return False


def test_every_bit_of_every_group_header_and_index_is_detected(explorer: Explorer, log: ClosedLog) -> None:
    name = log.segments[1]
    intact, bits = groups(log.device, name), list[tuple[int, int]]()
    for group in [intact[index] for index in (0, 9, -1)]:
        index = range(group.offset + GROUP_HEADER_BYTES + group.payload_bytes, group.end)
        used = [*range(group.offset, group.offset + GROUP_HEADER_BYTES), *index[:8]]
        bits += [(offset, bit) for offset in used for bit in range(8)]
    for offset, bit in bits:
        assert noticed(log.device, name, intact, offset, bit), f"offset {offset}, bit {bit}"
    for offset, bit in sampled(bits, PLACES):
        assert flip_and_look(explorer, log, name, offset, bit) != "clean", f"offset {offset}, bit {bit}"


def test_damage_below_the_durable_lsn_names_segment_offset_and_lsn(explorer: Explorer, log: ClosedLog) -> None:
    name = log.segments[1]
    group = groups(log.device, name)[4]

    async def scenario() -> None:
        device = log.device.fork()
        device.flip(name, group.offset + GROUP_HEADER_BYTES + 3, 0)
        opened = await open_on(disk_of(device), CONFIG)
        with pytest.raises(Corruption) as caught:
            await observe(opened)
        await opened.close()
        error = caught.value
        assert (error.segment, error.offset, error.lsn) == (group.segment, group.offset, group.first_lsn)
        assert error.hint

    explorer.run(scenario())


def test_damage_in_the_last_segment_refuses_to_open_and_changes_nothing(explorer: Explorer, log: ClosedLog) -> None:
    name = log.segments[-1]
    for group in groups(log.device, name)[:-1]:
        for offset in (group.offset, group.offset + 90, group.offset + GROUP_HEADER_BYTES, group.end - 1):
            device = log.device.fork()
            device.flip(name, offset, 5)
            assert explorer.run(told_by_opening(device)) == "Corruption", f"offset {offset}"


def test_middle_segment_missing_is_corruption(explorer: Explorer, log: ClosedLog) -> None:
    rename(log.device, {log.segments[1]: None})
    assert explorer.run(told_by_opening(log.device)) == "Corruption"
    assert explorer.run(told_by_reading(log.device, log.entries)) == "Corruption"


def test_last_segment_missing_is_corruption_since_the_seal_names_it(explorer: Explorer, log: ClosedLog) -> None:
    rename(log.device, {log.segments[-1]: None})
    assert explorer.run(told_by_opening(log.device)) == "Corruption"
    assert explorer.run(told_by_reading(log.device, log.entries)) == "Corruption"


def test_first_segment_missing_is_corruption(explorer: Explorer, log: ClosedLog) -> None:
    rename(log.device, {log.segments[0]: None})
    assert explorer.run(told_by_opening(log.device)) == "Corruption"
    assert explorer.run(told_by_reading(log.device, log.entries)) == "Corruption"


def test_all_segments_missing_beside_a_used_spare_is_corruption(explorer: Explorer, log: ClosedLog) -> None:
    rename(log.device, {spare_name(9): log.segments[1], **dict.fromkeys(log.segments)})
    assert explorer.run(told_by_opening(log.device)) == "Corruption"


def test_swapped_segments_are_corruption(explorer: Explorer, log: ClosedLog) -> None:
    first, second, *_ = log.segments
    rename(log.device, {first: second, second: first})
    assert explorer.run(told_by_opening(log.device)) == "Corruption"
    assert explorer.run(told_by_reading(log.device, log.entries)) == "Corruption"


def test_doubled_segment_under_another_name_is_corruption(explorer: Explorer, log: ClosedLog) -> None:
    for lsn in (2, 30, 10_000):
        device = log.device.fork()
        rename(device, {segment_name(lsn): log.segments[1]})
        assert explorer.run(told_by_opening(device)) == "Corruption"
        assert explorer.run(told_by_reading(device, log.entries)) == "Corruption"


def test_renamed_segment_is_corruption_and_says_its_own_name(explorer: Explorer, log: ClosedLog) -> None:
    for name in log.segments:
        device = log.device.fork()
        rename(device, {name: None, segment_name(int(name[:16], 16) + 1): name})
        assert explorer.run(told_by_opening(device)) == "Corruption"


def test_segment_of_another_log_is_corruption(explorer: Explorer, log: ClosedLog) -> None:
    for name in log.segments:
        device = log.device.fork()
        header = decode_segment_header(content(device, name))
        overwrite(device, name, 0, encode_segment_header(header._replace(log_id=header.log_id ^ 1)))
        assert explorer.run(told_by_reading(device, log.entries)) == "Corruption"


def test_newer_version_or_feature_is_unsupported_and_no_corruption(explorer: Explorer, log: ClosedLog) -> None:
    for name in log.segments:
        header = decode_segment_header(content(log.device, name))
        device = log.device.fork()
        overwrite(device, name, 0, encode_segment_header(header._replace(required=1 << 31)))
        assert explorer.run(told_by_reading(device, log.entries)) == UnsupportedFormat.__name__
        device = log.device.fork()
        overwrite(device, name, 8, b"\x02\x00\xfd\xff")
        with pytest.raises(BadSegment, match="version 2"):
            decode_segment_header(content(device, name))
        assert explorer.run(told_by_reading(device, log.entries)) == UnsupportedFormat.__name__


def test_zero_hole_before_intact_groups_is_corruption(explorer: Explorer, log: ClosedLog) -> None:
    for name in log.segments:
        for group in groups(log.device, name)[1:-1:5]:
            device = log.device.fork()
            overwrite(device, name, group.offset, bytes(group.group_bytes))
            assert explorer.run(told_by_reading(device, log.entries)) == "Corruption", f"{name}, {group.offset}"


def test_block_moved_to_another_offset_never_validates(explorer: Explorer, log: ClosedLog) -> None:
    name = log.segments[0]
    data, found = content(log.device, name), groups(log.device, name)
    for source, target in ((2, 7), (7, 2), (3, 4), (12, 3)):
        device = log.device.fork()
        moved = data[found[source].offset : found[source].end]
        overwrite(device, name, found[target].offset, moved)
        assert explorer.run(told_by_reading(device, log.entries)) == "Corruption", f"{source} over {target}"


def test_group_of_another_segment_at_the_same_offset_never_validates(explorer: Explorer, log: ClosedLog) -> None:
    first, second, *_ = log.segments
    sources = {group.offset: group for group in groups(log.device, first)}
    shared = [group for group in groups(log.device, second) if group.offset in sources]
    assert shared
    for group in shared:
        device = log.device.fork()
        overwrite(device, second, group.offset, content(device, first)[group.offset : sources[group.offset].end])
        assert explorer.run(told_by_reading(device, log.entries)) == "Corruption"


def test_file_cut_short_is_corruption(explorer: Explorer, log: ClosedLog) -> None:
    for name in log.segments:
        found = groups(log.device, name)
        for end in (0, 100, 4096, found[1].offset, found[1].end + 7):
            device = log.device.fork()
            file = device.file(name)
            data = content(device, name)[:end]
            rename(device, {name: None})
            device.create(name)
            overwrite(device, name, 0, data)
            device.directory.sync()
            assert file.visible_size > end
            assert explorer.run(told_by_reading(device, log.entries)) == "Corruption", f"{name} cut at {end}"
            if name == log.segments[-1]:
                assert explorer.run(told_by_opening(device)) == "Corruption"


def test_lengths_of_a_damaged_header_are_never_believed(explorer: Explorer, log: ClosedLog) -> None:
    """0, the largest and beyond the end: typed errors, and no more memory than the file has bytes."""
    name = log.segments[-1]
    group = groups(log.device, name)[1]
    for offset in range(72, 92, 4):
        for value in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\1\0"):
            device = log.device.fork()
            overwrite(device, name, group.offset + offset, value)
            before = content(log.device, name)[group.offset + offset :][:4]
            if value != before:
                assert explorer.run(told_by_reading(device, log.entries)) == "Corruption"


def test_stale_content_of_recycled_segments_never_comes_back(explorer: Explorer) -> None:
    """Segments go round: each new one begins in a file that is full of intact groups of the same sizes."""

    async def scenario() -> None:
        device, config = SimDevice(3), WalConfig(segment_bytes=64 * 1024, block_bytes=BLOCK)
        number, recycled = 0, 0
        for round_ in range(6):
            log = await open_on(disk_of(device), config)
            for _ in range(60):
                number += 1
                await log.append(b"%06d" % number * 500)
            await log.truncate_before(number - 5)
            await log.append(b"")
            number += 1
            recycled += sum(name.endswith(".spare") for name in device.directory.names)
            await log.flush()
            image = device.fork().crash()
            await log.close()
            image = device if round_ % 2 else image
            log = await open_on(disk_of(image), config)
            assert log.next_lsn == number + 1
            assert log.first_lsn == number - 6
            seen = await observe(log)
            wanted = [Entry(b"%06d" % each * 500) for each in range(number - 6, number)]
            assert seen.entries == [*wanted, Entry(b"")]
            await log.close()
            device = image
        assert recycled > 0

    explorer.run(scenario())


def test_payload_full_of_magic_at_every_block_position_is_only_payload(explorer: Explorer) -> None:
    """Also behind a torn tail, where recovery looks for groups that prove a loss."""

    async def scenario() -> None:
        device = SimDevice(4)
        payloads = [
            (GROUP_MAGIC * (BLOCK // 4) * 5)[shift : BLOCK * 4 + shift + extra]
            for shift in range(4)
            for extra in (0, 9)
        ]
        log = await open_on(disk_of(device), CONFIG)
        for payload in payloads:
            await log.append(payload)
        late = log.append(payloads[0])
        states: list[tuple[SimDevice, bool]] = []
        device.on_operation = lambda _, name: states.append((device.fork(), late.done()))
        await late
        device.on_operation = None
        await log.close()
        assert states
        for state, _ in states:
            for image in state.crash_states(20):
                again = await open_on(disk_of(image), CONFIG)
                seen = [entry.payload for entry in (await observe(again)).entries]
                assert seen in (payloads, [*payloads, payloads[0]])
                await again.close()

    explorer.run(scenario())


def test_own_groups_stored_as_payload_are_only_payload(explorer: Explorer, log: ClosedLog) -> None:
    """A log that archives its own files: what is in the payload are valid groups of this log."""

    async def scenario() -> None:
        device = log.device.fork()
        archived = [content(device, name)[4096:20_000] for name in log.segments]
        opened = await open_on(disk_of(device), CONFIG)
        for data in archived:
            await opened.append(data)
        await opened.flush()
        image = device.fork().crash()
        await opened.close()
        again = await open_on(disk_of(image), CONFIG)
        assert (await observe(again)).entries == log.entries + [Entry(data) for data in archived]
        await again.close()

    explorer.run(scenario())


def test_closing_mark_that_is_damaged_is_reported_and_loses_nothing(explorer: Explorer, log: ClosedLog) -> None:
    closing = groups(log.device, log.segments[-1])[-1]
    device = log.device.fork()
    device.flip(log.segments[-1], closing.offset + 20, 3)

    async def scenario() -> None:
        opened = await open_on(disk_of(device), CONFIG)
        assert not opened.report.clean
        assert [finding.kind for finding in opened.report.findings] == ["torn_tail"]
        assert (await observe(opened)).entries == log.entries
        await opened.close()

    explorer.run(scenario())
