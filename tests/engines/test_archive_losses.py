"""An archive that has lost objects: what verification tells, what can still be restored, what a push puts back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import walsvc
from tests.engines.command import run_archive
from tests.engines.test_archive import KEYS, fill, names_in, opening, records, restored, rotate
from walsvc import BadOption, Corruption, NoSpace, PathError, UnsupportedFormat
from walsvc.engines.archive import Archive, Archiver
from walsvc.engines.archive.manifest import ManifestEntry, chain_of, decode_entry, encode_entry
from walsvc.engines.archive.restore import restore, verify

pytest.importorskip("obstore", reason="the archive needs obstore (walsvc[archive])")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'archive'}"


async def archived(tmp_path, place, seed=1, **options):
    """The entries of a log that was archived, and what is archived of it."""
    async with opening(tmp_path, **options) as log:
        await fill(log, 90, random.Random(seed))
        await rotate(log)
        entries = await Archive.at(place).push(log)
        assert len(entries) >= 4
        return entries, await records(log, stop=entries[-1].next_lsn)


def emptied(place, pattern):
    for name in names_in(place, pattern):
        name.unlink()


async def test_last_entry_that_is_lost_is_found_by_the_pieces_that_nobody_names(tmp_path, place):
    entries, _ = await archived(tmp_path, place)
    names_in(place, "*/manifest/*")[-1].unlink()
    (finding,) = await verify(Archive.at(place))
    assert (finding.kind, finding.fatal) == ("unnamed", False)
    assert finding.message.startswith(f"{len(entries[-1].parts)} object")
    told = await asyncio.to_thread(run_archive, "verify", place)
    assert told.returncode == 1
    assert "that no entry names" in told.stdout


async def test_pieces_without_any_entry_are_corruption(tmp_path, place):
    entries, _ = await archived(tmp_path, place)
    emptied(place, "*/manifest/*")
    (finding,) = await verify(Archive.at(place))
    assert finding.fatal
    assert finding.message.startswith(f"{sum(len(entry.parts) for entry in entries)} objects and no entry")
    assert (await asyncio.to_thread(run_archive, "verify", place)).returncode == 3


async def test_nothing_at_the_url_and_a_log_that_is_not_there_are_told(tmp_path, place):
    for look in (verify, lambda archive: restore(archive, str(tmp_path / "back"))):
        with pytest.raises(BadOption, match="nothing is archived at this URL"):
            await look(Archive.at(place))
    entries, _ = await archived(tmp_path, place)
    for look in (verify, lambda archive: restore(archive, str(tmp_path / "back"))):
        with pytest.raises(BadOption, match=f"log 00 is not archived there.*these are: {entries[0].log_id}"):
            await look(Archive.at(place, log_id="00"))
    for verb in ("verify", "ls"):
        told = await asyncio.to_thread(run_archive, verb, place, "--log", "00")
        assert (told.returncode, told.stdout) == (2, "")
        assert entries[0].log_id in told.stderr
    assert (await asyncio.to_thread(run_archive, "verify", f"{place}-mistyped")).returncode == 2


async def test_verification_goes_on_behind_damage_and_tells_all_of_it(tmp_path, place):
    entries, _ = await archived(tmp_path, place)
    manifest = names_in(place, "*/manifest/*")
    manifest[1].write_bytes(b"{}")
    manifest[2].unlink()
    lost = names_in(place, f"*/parts/{entries[3].parts[0][1]}")[0]
    lost.unlink()
    found = await verify(Archive.at(place))
    assert [finding.fatal for finding in found] == [True, True, True, False]
    told = await asyncio.to_thread(run_archive, "verify", place, "--json")
    assert told.returncode == 3
    said = json.loads(told.stdout)
    assert said["segments"] == len(entries) - 2
    expected = [manifest[1].name, manifest[2].name, lost.name, "that no entry names"]
    assert all(name in finding["message"] for name, finding in zip(expected, said["findings"], strict=True))


@pytest.mark.parametrize("damage", ["missing", "damaged"])
async def test_what_lies_before_a_lost_entry_is_restored(tmp_path, place, damage):
    entries, expected = await archived(tmp_path, place)
    victim = names_in(place, "*/manifest/*")[2]
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-9])
    lsn = entries[2].first_lsn - 1
    assert await restored(Archive.at(place), tmp_path / "before", lsn=lsn) == expected[:lsn]
    for upto in ({}, {"lsn": lsn + 1}, {"lsn": entries[3].first_lsn}):
        with pytest.raises(Corruption, match=victim.name):
            await restore(Archive.at(place), str(tmp_path / "back"), **upto)
    listed = await asyncio.to_thread(run_archive, "ls", place, "--json")
    assert [json.loads(line)["sequence"] for line in listed.stdout.splitlines()] == [1, 2, *range(4, len(entries) + 1)]
    assert (listed.returncode, victim.name in listed.stderr) == (3, True)


async def test_push_stores_lost_pieces_again(tmp_path, place):
    _, expected = await archived(tmp_path, place)
    for name in names_in(place, "*/parts/*")[:3]:
        name.unlink()
    assert len(await verify(Archive.at(place))) == 3
    async with opening(tmp_path) as log:
        archive = Archive.at(place)
        for _ in range(2):
            await archive.push(log)
            assert archive.mended == 3
    assert await verify(Archive.at(place)) == []
    assert await restored(Archive.at(place), tmp_path / "back", lsn=len(expected)) == expected


async def test_restored_range_is_that_of_the_log(tmp_path, place):
    async with opening(tmp_path) as log:
        await fill(log, 90, random.Random(3))
        await log.truncate_before(31)
        await rotate(log)
        end = (await Archive.at(place).push(log))[-1].next_lsn
    copied = await restore(Archive.at(place), str(tmp_path / "back"))
    async with walsvc.open(tmp_path / "back", disk="threads") as back:
        assert (copied.first_lsn, copied.next_lsn) == (back.first_lsn, back.next_lsn) == (31, end)
    copied = await restore(Archive.at(place), str(tmp_path / "whole"), lsn=40)
    assert copied.first_lsn == 1  # it was not truncated then


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside its writer"])
async def test_encrypted_log_is_archived_without_its_keys(tmp_path, place, beside):
    async with contextlib.AsyncExitStack() as stack:
        async with opening(tmp_path, keys=KEYS) as log:
            await fill(log, 60, random.Random(4))
            await rotate(log)
            expected = await records(log)
        if beside:
            await stack.enter_async_context(opening(tmp_path, keys=KEYS))
        pushed = await asyncio.to_thread(run_archive, "push", tmp_path / "log", place)
        assert pushed.returncode == 0, pushed.stderr
        assert "without a hold" in pushed.stderr
    await restore(Archive.at(place), str(tmp_path / "back"))
    async with walsvc.open(tmp_path / "back", read_only=True, keys=KEYS) as back:
        found = await records(back)
        assert len(found) > 100
        assert found == expected[: len(found)]
    async with opening(tmp_path, keys=KEYS) as log:
        assert log.holds() == {}


async def test_directory_without_a_scheme_and_times_without_a_zone(tmp_path, place):
    async with opening(tmp_path) as log:
        await rotate(log)
    pushed = await asyncio.to_thread(run_archive, "push", tmp_path / "log", tmp_path / "a directory")
    assert pushed.returncode == 0, pushed.stderr
    assert await verify(Archive.at(f"{tmp_path / 'a directory'}")) == []
    back = await asyncio.to_thread(
        run_archive, "restore", tmp_path / "a directory", tmp_path / "back", "--until", "2100-01-01"
    )
    assert back.returncode == 0, back.stderr
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PathError, match="no directory") as caught:
        Archive.at(f"file://{tmp_path / 'file'}")
    assert caught.value.hint
    with pytest.raises(BadOption) as wrong:
        Archive.at("s4://bucket/x")
    assert "\n" not in str(wrong.value)


async def test_folders_of_somebody_else_are_no_logs(tmp_path, place):
    archive = tmp_path / "archive"
    for name in ("lost+found", "photos", "0123456789abcdef", "DEADBEEFDEADBEEF", ".snapshot"):
        (archive / name / "below").mkdir(parents=True)
        (archive / name / "below" / "file").write_bytes(b"x")
    assert await Archive.at(place).logs() == []
    with pytest.raises(BadOption, match="nothing is archived at this URL"):
        await restore(Archive.at(place), tmp_path / "copy")
    (tmp_path / "link").symlink_to(archive)
    entries, _ = await archived(tmp_path, str(tmp_path / "link"))
    assert await Archive.at(place).logs() == [entries[0].log_id]
    assert await verify(Archive.at(place)) == []
    await restore(Archive.at(place), tmp_path / "copy")


@pytest.mark.parametrize(
    ("said", "kind", "number"),
    [
        ("Unable to copy data to file: No space left on device (os error 28)", NoSpace, errno.ENOSPC),
        ("Unable to open file: Disk quota exceeded (os error 122)", NoSpace, errno.EDQUOT),
        ("Unable to create dir: Permission denied (os error 13)", PathError, errno.EACCES),
        ("Unable to create dir: Read-only file system (os error 30)", PathError, errno.EROFS),
        ("something else", PathError, None),
    ],
)
async def test_error_of_the_directory_keeps_its_number(tmp_path, monkeypatch, said, kind, number):
    import obstore
    from obstore.exceptions import GenericError

    async def failing(*_args, **_options):
        raise GenericError(f"Generic LocalFileSystem error: {said}")

    async with opening(tmp_path) as log:
        await fill(log, 30, random.Random(1))
        await rotate(log)
        await Archive.at((tmp_path / "archive").as_uri()).push(log)
        monkeypatch.setattr(obstore, "list_with_delimiter_async", failing)
        with pytest.raises(kind) as caught:
            await Archive.at((tmp_path / "archive").as_uri()).logs()
        assert caught.value.errno == number
        assert "reading the log" not in str(caught.value)


def test_archive_at_a_link_to_nothing_is_a_path_error(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(PathError, match="cannot be used"):
        Archive.at(str(tmp_path / "link"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
GOOD, WRITTEN = encode_entry(
    ManifestEntry(
        sequence=1, log_id="0" * 16, first_lsn=1, next_lsn=2, ordinal=0, generation=0, bytes=5, file_bytes=10,
        first_ns=0, last_ns=0, parts=((5, "a" * 64),), end_crc=0,
    )
)  # fmt: skip


@given(name=st.sampled_from([*json.loads(WRITTEN), "unknown"]), value=JSON)
@example(name="parts", value=[[float("inf"), "x"]])
@example(name="sequence", value=1e300)
@example(name="first_lsn", value=True)
@example(name="bytes", value=1 << 64)
@example(name="parts", value=[{"a": 1}])
@settings(max_examples=200, deadline=None)
def test_whatever_stands_in_a_field_of_an_entry_is_corruption(name, value):
    fields = {**json.loads(WRITTEN), name: value}
    with contextlib.suppress(Corruption, UnsupportedFormat):
        assert decode_entry(json.dumps(fields).encode(), GOOD.name) == GOOD


@pytest.mark.parametrize(
    "data", [b"[" * 200_000, b'{"a":' * 100_000, b"9" * 5000, b"\xff\xfe", b"", b"null", b"[]", b"Infinity"]
)
def test_entry_that_is_no_entry_is_corruption(data):
    with pytest.raises(Corruption, match="it is no manifest entry"):
        decode_entry(data, GOOD.name)


def test_gap_of_any_size_in_a_manifest_is_told_in_few_words():
    later = dataclasses.replace(GOOD, sequence=1 << 60)
    found = chain_of([GOOD, later])
    assert (found.whole, len(found.wrong)) == (1, 100)


async def test_store_that_takes_connections_and_never_answers_holds_nobody_who_leaves(tmp_path):
    asked, clients = asyncio.Event(), {}

    async def silent(reader, writer):
        clients[asyncio.current_task()] = writer
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as store, opening(tmp_path) as log:
        await rotate(log)
        port = store.sockets[0].getsockname()[1]
        archive = Archive.at(
            "s3://bucket/log",
            endpoint=f"http://127.0.0.1:{port}",
            access_key_id="x",
            secret_access_key="x",
            region="r",
            client_options={"allow_http": True},
        )
        for leaving in (archive.push(log), archive.manifest(), verify(archive), archive.logs()):
            asked.clear()
            waiting = asyncio.ensure_future(leaving)
            await asyncio.wait_for(asked.wait(), 60)
            waiting.cancel()
            await asyncio.wait([waiting], timeout=30)
            assert waiting.cancelled()
        asked.clear()
        async with asyncio.timeout(60), Archiver(log, archive) as archiver:
            await asked.wait()
        assert archiver.state == "stopped"
        for writer in clients.values():
            writer.close()
        await asyncio.wait(clients)  # the loop is closed next, and must not meet a connection that is still closing


async def test_what_the_store_s_client_needs_in_the_environment_is_named(monkeypatch):
    for name in ("AWS_ALLOW_HTTP", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    with pytest.raises(BadOption, match="Missing SecretAccessKey") as caught:
        Archive.at("s3://bucket/log")
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(PathError, match="cannot be reached") as caught:
        await Archive.at("s3://bucket/log").logs()
    assert "AWS_ALLOW_HTTP=true" in caught.value.hint


@pytest.mark.parametrize("where", [".", "archive", "../link/archive"])
async def test_archive_inside_the_log_itself_is_refused(tmp_path, where):
    (tmp_path / "link").symlink_to(tmp_path / "log")
    async with opening(tmp_path) as log:
        await log.append(b"x")
        archive = Archive.at(tmp_path / "log" / where)
        for call in (lambda: archive.push(log), Archiver(log, archive).__aenter__):
            with pytest.raises(PathError, match="inside the log itself"):
                await call()
        assert log.holds() == {}
