"""What a target names: the same reading for calls, verbs, options, settings and the environment. Nothing is made by mistake."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import walsvc
from tests.forked import run_walsvc
from walsvc import BadOption, PathError, WalError
from walsvc.engines.archive.address import address_of
from walsvc.engines.archive.restore import restore as restore_archive
from walsvc.log.offline.backup import copy_log
from walsvc.log.offline.verify import verify
from walsvc.service.ops.settings import load_settings
from walsvc.service.server.server import Server
from walsvc.targets import host_and_port, parse_url, scheme_of, shown

MISTAKES = [
    "unix:run/x.sock",
    "unix:",
    "unix://run/x.sock",
    "unix:///\udcff",
    "wal:/h",
    "wal:h",
    "wal:",
    "WAL:/h",
    "wals:///ns",
    " wal://h/ns",
    "\twal://h",
    "\ufeffwal://h",
    "\u200bwal://h",
    " data",
    "wal://h/ns\n",
    "wal://h /ns",
    "wal://h\x1b/ns",
    "wal://[::1",
    "wal://::1",
    "wal://a..b",
    "wal://[::1%é]",
    "wal://[fe80::1%]:7",
    "wal://.",
    "wal://h:99999",
    "wal://h:0",
    "wal://h:-1",
    "wal://h:x",
    "wal://h:٣",
    f"wal://{'a' * 64}",
    f"wal://{'a.' * 150}",
    "wal://h%2e",
    "nats:/h/s",
    "nats:h/s",
    "tls:/h/s",
    "nats://a..b/s",
    "nats://[::1/s",
    "nats://h:0/s",
    "nats://h/s?timeout",
    "nats://h/s?timeout=9&timeout=8",
    "wal://h?timeout=9&timeout=8",
    "wal://h?timeut=9",
    "http://h",
    "file:///tmp/x",
    "s3://bucket/x",
    "s3//bucket/x",
    "wal//h",
    "NATS//h/s",
    "a:b",
    r"C:\logs",
    "c:/logs",
    "mailto:x",
    "~",
    "~/log",
    "~nobody",
    "~nobody/log",
]
PATHS = ["./a:b", "./wal//h", "wals/h", "./wal:", "./~", "://", ":a", "a b", "ordinary", "a/wal://h", "1:2", "wal", "-"]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("target", MISTAKES)
def test_mistake_is_refused_at_once_and_makes_nothing(empty, target):
    with pytest.raises(BadOption):
        walsvc.open(target)
    assert os.listdir(empty) == []


@pytest.mark.parametrize("target", PATHS)
async def test_path_is_a_directory_whatever_stands_in_it(empty, target):
    async with walsvc.open(target) as log:
        assert (await log.append(b"x")).lsn == 1
    assert list(empty.joinpath(target).glob("*.wal"))


@pytest.mark.parametrize(
    "target", ["WAL://127.0.0.1:1/ns", "Unix:///none/x.sock", "unix:/none/x.sock", "WaLs://127.0.0.1:1"]
)
async def test_scheme_has_no_case_and_an_absolute_path_needs_no_slashes(empty, target):
    with pytest.raises(walsvc.Unreachable):
        await walsvc.open(target)
    assert os.listdir(empty) == []


async def test_path_objects_and_bytes_are_paths(empty):
    for target in (Path("a:b"), b"c:d", Path("./e:f"), b"g\xff"):
        async with walsvc.open(target, read_only=False) as log:
            await log.append(b"x")
    assert sorted(os.listdir(b".")) == [b"a:b", b"c:d", b"e:f", b"g\xff"]
    for url in (
        Path("wal://h/ns"),
        Path("unix:/x"),
        b"wal://h",
        b"WAL:/h",
        Path("http://h/x"),
        b" wal://h",
        Path("~/x"),
        Path("~nobody/x"),
        b"~nobody",
    ):
        with pytest.raises(BadOption):
            walsvc.open(url)
    with pytest.raises(BadOption):
        walsvc.open(7)
    assert len(os.listdir(empty)) == 4


@pytest.mark.parametrize("target", ["", b"", "a\0b", b"a\0b", "a\ud800b"])
async def test_what_no_file_system_has_is_told(empty, target):
    with pytest.raises(PathError):
        async with walsvc.open(target):
            pass
    assert os.listdir(empty) == []


@pytest.mark.parametrize("wrong", ["wal:/h", "WAL://h/ns", " x", "~/x", "~nobody/x", "a:b", "a\0b"])
async def test_every_call_that_takes_a_directory_reads_it_alike(empty, wrong):
    async with walsvc.open("log") as log:
        await log.append(b"x")
    before = os.listdir(empty)
    calls = [
        lambda: copy_log("log", wrong, sparse=False),
        lambda: copy_log(wrong, "copy", sparse=False),
        lambda: verify(wrong),
        lambda: walsvc.migrate(wrong),
        lambda: restore_archive(None, wrong),  # type: ignore[arg-type]  # it is not reached
        lambda: walsvc.WalWriter.open(wrong),
        lambda: asyncio.to_thread(Server, wrong, unix="s"),
        lambda: asyncio.to_thread(load_settings, {"data": wrong, "unix": "s"}, environment={}),
        lambda: asyncio.to_thread(load_settings, {"data": "log", "unix": wrong}, environment={}),
        lambda: asyncio.to_thread(load_settings, {"data": "log", "unix": "s", "archive": wrong}, environment={}),
    ]
    for call in calls:
        with pytest.raises((BadOption, PathError)):
            await call()
    assert os.listdir(empty) == before


VERBS = [
    ("append", "{}"),
    ("cat", "{}"),
    ("tail", "{}"),
    ("topics", "{}"),
    ("consumers", "ls", "{}"),
    ("consumers", "rm", "{}", "c"),
    ("truncate", "{}", "--before", "1"),
    ("purge", "{}", "--key", "k"),
    ("compact", "{}"),
    ("inspect", "{}"),
    ("verify", "{}"),
    ("repair", "{}"),
    ("migrate", "{}"),
    ("doctor", "{}"),
    ("backup", "log", "{}"),
    ("backup", "{}", "copy"),
    ("restore", "{}", "copy"),
    ("restore", "log", "{}"),
    ("archive", "push", "{}", "store"),
    ("archive", "restore", "store", "{}"),
    ("bench", "run", "{}", "--records", "1"),
    ("bench", "run", "--url", "{}", "--records", "1"),
    ("serve", "--unix", "s", "--data", "{}"),
    ("serve", "--data", "log", "--unix", "{}"),
    ("serve", "--data", "log", "--unix", "s", "--replicate", "{}"),
    ("serve", "--data", "log", "--unix", "s", "--archive", "{}"),
    ("health", "{}"),
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_reads_a_target_alike(empty, verb):
    walsvc_made = run_walsvc("append", "log", "-q", stdin=b"x\n")
    assert walsvc_made.returncode == 0
    before = sorted(os.listdir(empty))
    for wrong in ("wal:/h", " wal://h"):
        ended = run_walsvc(*(wrong if part == "{}" else part for part in verb), stdin=b"x\n")
        assert ended.returncode == 2, (wrong, ended)
        assert b"Traceback" not in ended.stderr
        assert sorted(os.listdir(empty)) == before


@pytest.mark.parametrize(
    "wrong", ["file:rel", "file:", "file://host/x", "file:///a#b", "s3:bucket", "s3:/bucket", "s3://", " x"]
)
def test_archive_that_is_none_is_refused(empty, wrong):
    with pytest.raises(BadOption):
        address_of(wrong)


def test_archive_is_a_url_or_a_directory(empty):
    for given_as in ("plain", "./plain", Path("plain"), b"plain", str(empty / "plain")):
        assert address_of(given_as) == (empty / "plain").as_uri()
    assert (
        address_of("file:/a%20b")
        == address_of("FILE:///a%20b")
        == address_of("file://localhost/a%20b")
        == "file:///a%20b"
    )
    assert address_of("S3://bucket/logs") == "s3://bucket/logs"
    with pytest.raises(BadOption, match="neither a login"):
        address_of("s3://id:hunter2@bucket/x")


def test_unknown_option_is_told_with_the_one_that_was_meant(tmp_path):
    for target, options in (
        (tmp_path, {"segment_byte": 65536}),
        ("wal://h", {"timeot": 1.0}),
        ("nats://h/s", {"monitors": []}),
    ):
        with pytest.raises(BadOption) as caught:
            walsvc.open(target, **options)
        assert caught.value.hint.partition("?")[0] in ("segment_bytes", "timeout", "monitor")


async def test_unknown_option_of_serve_is_told_with_the_one_that_was_meant(tmp_path):
    from walsvc.service.server.server import serve

    with pytest.raises(BadOption, match=r"unknown option 'tokns'\. Hint: tokens"):
        async with serve(tmp_path, unix=tmp_path / "s", tokns=None):
            pass


def test_nothing_secret_is_shown():
    for url in (
        "wal://u:hunter2@h",
        "nats://u:hunter2@h/s?x",
        "wal://h?token=hunter2",
        "wal://h#hunter2",
        "nats://u:hun/ter2@h",
    ):
        assert "ter2" not in shown(url)


ODD = st.text(st.sampled_from("walnstuix:/@[]?#&=%.,~ \t\n\x00\x1b\ud800\udcffé٣\u202e-_0123456789"), max_size=40)
PREFIXES = st.sampled_from(
    ["", "wal://", "wals://", "unix:///", "nats://", "tls://h/", "nats://h/s?", "wal://h?", "s3://", "file:"]
)


@given(PREFIXES, ODD)
def test_any_text_is_a_target_or_an_error_of_ours(prefix, text):
    for read in (walsvc.open, address_of, host_and_port, lambda each: parse_url(each, "example")):
        try:
            read(prefix + text)
        except WalError as error:
            str(error).encode("utf-8", "surrogatepass")


@given(ODD)
def test_text_with_a_scheme_is_never_a_path(text):
    for scheme in ("wal", "Unix", "x-y.z"):
        assert scheme_of(f"{scheme}:{text.replace(chr(0), '').replace(chr(0xD800), '')}") == scheme.lower()
