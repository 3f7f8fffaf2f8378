"""A log in a real JetStream cluster: what differs from one in a directory."""

from __future__ import annotations

import asyncio
import errno

import pytest
from nats.errors import NoRespondersError

import walsvc
from tests.engines.streams import api, configuration
from walsvc import BadOption, Corruption, DurabilityLost, NoSpace, PathError
from walsvc.engines.jetstream.checks import leader_of
from walsvc.engines.jetstream.connect import server_name


async def payloads(log, *args):
    return [record.payload async for record in log.read(*args)]


async def test_statistics_say_what_an_acknowledgement_means(open_stream):
    async with open_stream() as log:
        stats = log.stats()
        assert stats.disk == "jetstream"
        assert stats.sync_method == "acknowledged by a majority of 3, each of which syncs always"


async def test_stream_is_made_as_a_log_needs_it(cluster, stream, open_stream):
    async with open_stream(), api(cluster) as ask:
        config = (await ask(f"STREAM.INFO.{stream}"))["config"]
    assert (config["num_replicas"], config["storage"], config["discard"]) == (3, "file", "new")
    assert (config["max_age"], config["max_msgs"], config["deny_delete"]) == (0, -1, True)


async def test_writer_is_connected_to_the_server_that_leads_its_stream(cluster):
    """Each of six streams has a leader of its own; six right by chance would be one in 729."""
    for _ in range(6):
        url = cluster.url(cluster.new_stream())
        async with walsvc.open(url, monitor=cluster.monitor) as log:
            await log.append(b"x")
        async with walsvc.open(url, monitor=cluster.monitor) as log:
            stream = log.writer.segments.disk._stream
            assert await server_name(stream.client) == leader_of(await stream.info())
            await log.append(b"y")


async def test_leader_that_the_address_does_not_name_is_reached_through_another_server(cluster, stream):
    async with walsvc.open(cluster.url(stream), monitor=cluster.monitor) as log:
        await log.append(b"x")
        leader = leader_of(await log.writer.segments.disk._stream.info())
    other = next(each for number, each in enumerate(cluster.servers, 1) if leader != f"n{number}")
    async with walsvc.open(f"{other}/{stream}", monitor=cluster.monitor) as log:
        await log.append(b"y")
        assert await payloads(log) == [b"x", b"y"]
        assert await server_name(log.writer.segments.disk._stream.client) != leader


async def test_a_group_commit_is_one_message(cluster, stream, open_stream):
    async with open_stream(segment_bytes=1 << 20) as log, api(cluster) as ask:
        await log.append(b"x")
        before = (await ask(f"STREAM.INFO.{stream}"))["state"]["last_seq"]
        await asyncio.gather(*(log.append(b"x" * 100) for _ in range(200)))
        after = (await ask(f"STREAM.INFO.{stream}"))["state"]["last_seq"]
        assert after - before == log.stats().groups - 1 <= 5


async def test_record_larger_than_a_message_is_several_and_comes_back(open_stream):
    large = bytes(range(256)) * 12_000
    async with open_stream() as log:
        assert len(large) > 2 * log.writer.segments.disk._stream.client.max_payload
        await log.append(b"before")
        await log.append(large)
        await log.append(b"after" + bytes(5000))
        assert await payloads(log) == [b"before", large, b"after" + bytes(5000)]
    async with open_stream() as log:
        assert log.report.clean
        assert await payloads(log) == [b"before", large, b"after" + bytes(5000)]


async def test_opening_reads_the_newest_segment_only(open_stream):
    async with open_stream() as log:
        for number in range(120):
            await log.append(b"%d" % number * 5000)
        assert log.stats().segments > 5
        written = log.stats().written_bytes
    async with open_stream() as log:
        assert log.next_lsn == 121
        assert log.writer.segments.disk._stream.bytes_read < written / 2
        assert len(await payloads(log)) == 120


async def test_truncated_segments_are_purged(cluster, stream, open_stream):
    async with open_stream() as log, api(cluster) as ask:
        for number in range(20):
            await log.append(b"%d" % number * 10_000)
        before = (await ask(f"STREAM.INFO.{stream}"))["state"]
        await log.truncate_before(15)
        after = (await ask(f"STREAM.INFO.{stream}"))["state"]
        assert after["first_seq"] > before["first_seq"]
        assert after["bytes"] < before["bytes"] / 2
    async with open_stream() as log:
        assert log.first_lsn == 15
        assert len(await payloads(log)) == 6


async def test_read_only_follows_a_writer_elsewhere(open_stream):
    async with open_stream() as log:
        await log.append_batch([b"%d" % number for number in range(100)])
        async with open_stream(read_only=True) as reader:
            assert await payloads(reader) == await payloads(log)
            seen = []

            async def watch():
                async for record in reader.follow(90):
                    seen.append(record.lsn)
                    if record.lsn == 200:
                        return

            watching = asyncio.ensure_future(watch())
            for number in range(100):
                await log.append(b"%d" % number * 1000)
            await asyncio.wait_for(watching, 60)
            assert seen == list(range(90, 201))
        await log.append(b"reading took nothing over")


async def test_reader_of_nothing_makes_nothing(cluster, stream, open_stream):
    with pytest.raises(PathError, match="no such stream"):
        await open_stream(read_only=True)
    async with api(cluster) as ask:
        assert stream not in ((await ask("STREAM.NAMES"))["streams"] or ())


# ---- damage


async def spoil(cluster, stream, open_stream, lsn):
    """Delete the message that holds record `lsn` from a stream of 60 records; returns its sequence."""
    async with api(cluster) as ask:
        await ask(f"STREAM.CREATE.{stream}", configuration(stream))
        async with open_stream(max_group_records=1) as log:
            for number in range(60):
                await log.append(b"%d" % number * 2000)
            name = next(each for each in reversed(log.writer.segments.ids()) if each <= lsn)
            index = log.writer.segments.disk._files.directory.files[name].index
            end = index.end_lsns.index(lsn + 1)
            sequence = index.sequences[end]
        await ask(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence})
        return sequence


async def test_missing_message_is_corruption_with_sequence_and_lsn(cluster, stream, open_stream):
    sequence = await spoil(cluster, stream, open_stream, 17)
    async with open_stream() as log:
        seen = []
        with pytest.raises(Corruption) as caught:
            async for record in log.read():
                seen.append(record.lsn)
        assert seen == list(range(1, 17))
        assert caught.value.lsn == 17
        assert f"message {sequence} of stream {stream}" in str(caught.value)
        assert (await payloads(log, 20)) == [b"%d" % number * 2000 for number in range(19, 60)]
        await log.append(b"the end is whole")


async def test_missing_message_at_the_end_refuses_to_open_and_changes_nothing(cluster, stream, open_stream):
    sequence = await spoil(cluster, stream, open_stream, 60)
    async with api(cluster) as ask:
        before = (await ask(f"STREAM.INFO.{stream}"))["state"]["last_seq"]
        with pytest.raises(Corruption, match=f"message {sequence} "):
            await open_stream()
        assert (await ask(f"STREAM.INFO.{stream}"))["state"]["last_seq"] == before


async def test_message_of_somebody_else_is_noticed_by_both_sides(cluster, stream, open_stream):
    async with api(cluster) as ask, open_stream() as log:
        await log.append(b"mine")
        await ask.client.jetstream().publish(f"walsvc.{stream}", b"not of this log")
        with pytest.raises(walsvc.Fenced, match="something else"):
            await log.append(b"lost its place")
        with pytest.raises(Corruption):
            await open_stream()


async def test_messages_purged_from_outside_are_corruption(cluster, stream, open_stream):
    async with open_stream() as log:
        for number in range(20):
            await log.append(b"%d" % number * 10_000)
    async with api(cluster) as ask:
        await ask(f"STREAM.PURGE.{stream}", {"seq": 5})
        with pytest.raises(Corruption, match="purged from outside"):
            await open_stream()
        await ask(f"STREAM.PURGE.{stream}")
        with pytest.raises(Corruption, match="emptied from outside"):
            await open_stream()


# ---- room


async def test_full_stream_is_no_space_before_an_lsn_is_given(cluster, stream, open_stream):
    async with api(cluster) as ask:
        await ask(f"STREAM.CREATE.{stream}", configuration(stream, max_bytes=400_000))
        async with open_stream() as log:
            with pytest.raises(NoSpace):
                for _ in range(100):
                    await log.append(bytes(range(1, 251)) * 100)
            kept = log.next_lsn - 1
            assert kept > 5
            assert len(await payloads(log)) == kept
            await log.truncate_before(kept)
            assert (await log.append(b"room again")).lsn == kept + 1


async def test_stream_without_room_ends_the_log_honestly(cluster, stream, open_stream):
    async with api(cluster) as ask:
        await ask(f"STREAM.CREATE.{stream}", configuration(stream))
        async with open_stream(segment_bytes=1 << 20) as log:
            await log.append(b"kept")
            await ask(f"STREAM.UPDATE.{stream}", configuration(stream, max_bytes=20_000))
            with pytest.raises(DurabilityLost) as caught:
                await log.append(bytes(range(1, 251)) * 200)
            assert caught.value.errno == errno.ENOSPC
        await ask(f"STREAM.UPDATE.{stream}", configuration(stream))
        async with open_stream() as log:
            assert await payloads(log) == [b"kept"]


# ---- what is refused


async def test_system_account_tells_what_the_monitoring_ports_tell(open_stream):
    async with open_stream(monitor=[], system_user="sys", system_password="sys") as log:
        assert "NOT" not in log.stats().sync_method


async def test_servers_that_nobody_tells_of_are_refused_unless_allowed(open_stream):
    with pytest.raises(PathError, match="nobody tells whether servers n1, n2, n3") as caught:
        await open_stream(monitor=[])
    assert "jetstream { sync_interval: always }" in str(caught.value)
    async with open_stream(monitor=[], allow_unsynced=True) as log:
        assert "NOT known to be synced by servers n1, n2, n3" in log.stats().sync_method


async def test_fewer_replicas_are_refused_unless_allowed(cluster, stream, open_stream):
    async with api(cluster) as ask:
        await ask(f"STREAM.CREATE.{stream}", configuration(stream, num_replicas=1))
    with pytest.raises(PathError, match="1 replicas") as caught:
        await open_stream()
    assert f"nats stream edit {stream} --replicas=3" in str(caught.value)
    async with open_stream(allow_unsynced=True) as log:
        assert "allow_unsynced" in log.stats().sync_method
        await log.append(b"x")


async def test_stream_that_discards_old_messages_is_refused_always(cluster, stream, open_stream):
    async with api(cluster) as ask:
        await ask(f"STREAM.CREATE.{stream}", configuration(stream, discard="old", max_msgs=1000))
    with pytest.raises(PathError, match="discards old messages") as caught:
        await open_stream(allow_unsynced=True)
    assert f"nats stream edit {stream} --discard=new" in str(caught.value)


async def test_nobody_at_the_address_is_a_path_error():
    with pytest.raises(PathError, match="no NATS server could be reached"):
        await walsvc.open("nats://127.0.0.1:1/stream", timeout=1.0)


async def test_wrong_monitor_is_a_bad_option(open_stream):
    with pytest.raises(BadOption):
        await open_stream(monitor=["127.0.0.1:8222"])


async def test_closing_does_not_wait_for_a_preparation_that_nobody_answers(open_stream, monkeypatch):
    """The next segment is being prepared when the log is closed; 30 s went by before the preparation had an end."""
    log = await open_stream()
    await log.append(b"x")
    asked = asyncio.Event()

    async def unanswered(*_, **__):
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(log.writer.segments.disk._stream.client, "request", unanswered)
    async with asyncio.timeout(60):
        await log.append(bytes(30_000))
        await asked.wait()
        assert log.writer.core.tail.spares._task is not None
        await log.close()
    async with open_stream() as log:
        assert log.report.clean
        assert len(await payloads(log)) == 2


async def test_room_that_nobody_tells_of_is_taken_for_given(open_stream, monkeypatch):
    """The stream's limit is not known while its servers do not answer: segments begin all the same."""
    async with open_stream(timeout=3.0) as log:
        client = log.writer.segments.disk._stream.client

        async def refused(*_, **__):
            raise NoRespondersError

        with monkeypatch.context() as patch:
            patch.setattr(client, "request", refused)
            for _ in range(12):
                await log.append(bytes(10_000))
        assert log.stats().rotations >= 1
        assert len(await payloads(log)) == 12
