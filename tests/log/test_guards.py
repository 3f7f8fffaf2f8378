"""One writer, one process, one loop; and bad input is told apart."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import walsvc
from walsvc import BadOption, Locked, PathError, WalError, WalWriter, WrongLoop
from walsvc.format.segment import SegmentHeader, encode_segment_header


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


async def test_second_opener_gets_locked_at_once_and_the_first_goes_on(tmp_path):
    async with walsvc.open(tmp_path / "log") as log:
        with pytest.raises(Locked) as caught:
            await walsvc.open(tmp_path / "log")
        assert caught.value.hint
        assert caught.value.path
        assert (await log.append(b"still here")).lsn == 1
    async with walsvc.open(tmp_path / "log") as log:
        assert log.next_lsn == 2


async def test_a_killed_holder_releases_the_lock(tmp_path):
    code = (
        "import asyncio, sys, walsvc\n"
        "async def main():\n"
        "    log = await walsvc.open(sys.argv[1])\n"
        "    await log.append(b'x')\n"
        "    print('open', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"open\n"
    with pytest.raises(Locked) as caught:
        await walsvc.open(tmp_path / "log")
    assert str(child.pid) in str(caught.value)
    child.kill()
    child.wait()
    child.stdout.close()
    async with walsvc.open(tmp_path / "log") as log:
        assert log.next_lsn == 2
        assert not log.report.clean


async def test_forked_child_is_refused_and_the_parent_goes_on(tmp_path):
    async with walsvc.open(tmp_path / "log") as log:
        await log.append(b"parent")
        child = os.fork()
        if child == 0:
            try:
                log.append(b"child")
            except WrongLoop as error:
                os._exit(7 if "forked" in str(error) else 1)
            except BaseException:
                os._exit(2)
            os._exit(3)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert (await log.append(b"parent again")).lsn == 2


async def test_other_thread_is_refused(tmp_path):
    async with walsvc.open(tmp_path / "log") as log:
        errors: list[BaseException] = []

        def intrude() -> None:
            for call in (log.append, log.append_nowait):
                try:
                    call(b"x")
                except WrongLoop as error:
                    errors.append(error)

        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        assert len(errors) == 2
        assert log.next_lsn == 1


def test_other_loop_is_refused(tmp_path):
    first = asyncio.new_event_loop()
    log = first.run_until_complete(open_it(tmp_path / "log"))

    async def use() -> None:
        with pytest.raises(WrongLoop):
            await log.append(b"x")
        with pytest.raises(WrongLoop):
            await log.flush()
        with pytest.raises(WrongLoop):
            async for _ in log.read():
                raise AssertionError("a record from nowhere")

    second = asyncio.new_event_loop()
    second.run_until_complete(use())
    second.close()
    first.run_until_complete(log.close())
    first.close()


async def open_it(path: Path) -> walsvc.Log:
    log: walsvc.Log = await walsvc.open(path)
    return log


async def test_writer_works_alone(tmp_path):
    writer = await WalWriter.open(tmp_path / "log", segment_bytes=65536)
    assert (await writer.append(b"alone")).lsn == 1
    await writer.close()
    config = walsvc.WalConfig(segment_bytes=1 << 20, max_record_bytes=100)
    async with WalWriter.open(tmp_path / "log", config=config, namespace="n") as writer:
        assert (await writer.append(b"alone")).lsn == 1
        with pytest.raises(walsvc.RecordTooLarge):
            writer.append(bytes(101))
    with pytest.raises(walsvc.Closed):
        writer.append(b"closed")
    async with await WalWriter.open(os.fsencode(tmp_path / "log" / "n"), config=config) as writer:
        assert writer.next_lsn == 2
    with pytest.raises(BadOption):
        WalWriter.open(tmp_path / "log", frobnicate=1)


async def test_path_may_be_bytes(tmp_path):
    path = os.fsencode(tmp_path) + b"/not utf-8: \xff"
    async with walsvc.open(path, namespace="n") as log:
        await log.append(b"x")
        assert os.fsencode(log.path) == path + b"/n"
    async with walsvc.open(path + b"/n", read_only=True) as log:
        assert log.next_lsn == 2


async def test_cancelled_opening_has_released_the_lock_when_it_ends(tmp_path):
    async with walsvc.open(tmp_path / "log"):
        pass
    for turns in range(40):
        opening = asyncio.create_task(open_it(tmp_path / "log"))
        for _ in range(turns):
            await asyncio.sleep(0 if turns < 20 else 0.0005)
        opening.cancel()
        try:
            await (await opening).close()
        except asyncio.CancelledError:
            pass
        async with walsvc.open(tmp_path / "log"):
            pass


async def test_file_in_place_of_the_directory(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    with pytest.raises(PathError) as caught:
        await walsvc.open(path)
    assert caught.value.hint
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("path", ["", "a\0b", "/proc/nope/log", "x" * 300])
async def test_impossible_path(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PathError) as caught:
        await walsvc.open(path)
    assert caught.value.hint
    assert tree(tmp_path) == {}


async def test_read_only_of_nothing_creates_nothing(tmp_path):
    with pytest.raises(PathError):
        await walsvc.open(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(PathError):
        await walsvc.open(tmp_path / "empty", read_only=True)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "content",
    [b"", b"not a log at all\n" * 500, bytes(65536), encode_segment_header(SegmentHeader(0, 0, 1, 1, 1, 9, 0, 0, 512))],
    ids=["empty", "text", "zeros", "other-lsn"],
)
async def test_foreign_file_named_like_a_segment_is_refused_and_left_alone(tmp_path, content, read_only):
    path = tmp_path / "log"
    path.mkdir()
    (path / "0000000000000001.wal").write_bytes(content)
    with pytest.raises(WalError) as caught:
        await walsvc.open(path, read_only=read_only)
    assert caught.value.segment == 1
    assert caught.value.hint
    assert (path / "0000000000000001.wal").read_bytes() == content
    assert set(tree(path)) <= {"LOCK", "0000000000000001.wal"}


async def test_newer_format_is_unsupported_and_left_alone(tmp_path):
    async with walsvc.open(tmp_path / "log", segment_bytes=65536) as log:
        await log.append(b"x")
    segment = tmp_path / "log" / "0000000000000001.wal"
    data = bytearray(segment.read_bytes())
    data[8:12] = b"\x02\x00\xfd\xff"
    segment.write_bytes(data)
    before = tree(tmp_path / "log")
    for read_only in (False, True):
        with pytest.raises(walsvc.UnsupportedFormat) as caught:
            await walsvc.open(tmp_path / "log", read_only=read_only)
        assert "2" in str(caught.value)
    assert {k: v for k, v in tree(tmp_path / "log").items() if k != "LOCK"} == {
        k: v for k, v in before.items() if k != "LOCK"
    }


@pytest.mark.parametrize(
    "options",
    [
        {"segment_bytes": 1000},
        {"segment_bytes": "64"},
        {"disk": "floppy"},
        {"commit_delay": -1},
        {"relaxed_interval": 0},
        {"block_bytes": 3000},
        {"max_group_records": 0},
        {"colour": "red"},
        {"read_only": 1},
    ],
)
def test_bad_option_is_refused_at_once(options, tmp_path):
    with pytest.raises(BadOption) as caught:
        walsvc.open(tmp_path / "log", **options)
    assert next(iter(options)) in str(caught.value)
    assert not (tmp_path / "log").exists()


def test_path_of_a_wrong_type_is_refused():
    with pytest.raises(BadOption):
        walsvc.open(5)  # type: ignore[arg-type]


async def test_disk_of_the_environment_wins_over_auto(tmp_path, monkeypatch):
    monkeypatch.setenv("WALSVC_DISK", "threads")
    async with walsvc.open(tmp_path / "log") as log:
        assert log.stats().disk == "threads"
    monkeypatch.setenv("WALSVC_DISK", "paper")
    with pytest.raises(BadOption):
        walsvc.open(tmp_path / "log")
