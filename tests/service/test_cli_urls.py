"""The command line on a served log."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.conftest import Cli
from tests.waiting import line_with
from walsvc.cli import exits


class Served(NamedTuple):
    """A running `walsvc serve`."""

    url: str
    data: Path
    cli: Cli


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """One server for all tests here; each has records of its own."""
    cli = Cli()
    with tempfile.TemporaryDirectory(prefix="walsvc-") as place:
        data, socket = Path(place) / "log", Path(place) / "socket"
        server = cli.start("serve", "--data", data, "--unix", socket)
        assert server.stdout is not None
        assert b"listening" in server.stdout.readline()
        yield Served(f"unix://{socket}", data, cli)
        server.terminate()
        assert server.wait(timeout=120) == 0
        cli.end()


def test_records_go_in_and_come_out(served):
    url, cli = served.url, served.cli
    lsns = [int(line) for line in cli.good("append", url, stdin=b"one\ntwo\nthree\n").split()]
    first = lsns[0]
    assert lsns == [first, first + 1, first + 2]
    assert cli.good("cat", url, "--start", first) == b"one\ntwo\nthree\n"
    assert cli.good("cat", url, "--start", first, "--stop", first + 1) == b"one\n"
    assert cli.good("tail", url, "-n", 2) == b"two\nthree\n"
    batch = cli.good("append", url, "--batch", 2, "--mode", "relaxed", stdin=b"a\nb\nc\n")
    assert batch.split() == [b"%d" % (first + number) for number in (3, 4, 5)]
    row = json.loads(cli.good("tail", url, "-n", 1, "--format", "json"))
    assert (row["lsn"], row["payload"]) == (first + 5, "c")


def test_tail_follows_until_it_is_interrupted(served):
    following = served.cli.start("tail", "-f", "-n", 1, served.url)
    served.cli.good("append", served.url, "-q", stdin=b"followed\n")
    line_with(b"followed\n", following.stdout)
    following.send_signal(2)
    assert following.wait(timeout=120) == exits.INTERRUPTED


def test_topics_and_consumers_are_the_servers(served):
    import asyncio

    import walsvc

    async def prepare() -> None:
        async with walsvc.open(served.url) as log:
            for name in ("orders", "bills"):
                await log.topic(name).append_batch([b"x"] * 4)
            consumer = await log.topic("orders").consumer("c")
            await consumer.ack((await consumer.next()).lsn)
            await consumer.close()

    asyncio.run(prepare())
    cli, url = served.cli, served.url
    topics = {row["topic"]: row for row in json.loads(cli.good("topics", url, "--json"))["topics"]}
    assert topics["orders"]["records"] == topics["bills"]["records"] == 4
    assert json.loads(cli.good("consumers", "ls", url, "--json"))["consumers"][0]["lag"] == 3
    assert b"lag 0" in cli.good("consumers", "seek", url, "c", "next", "--topic", "orders")
    assert b"deleted" in cli.good("consumers", "rm", url, "c", "--topic", "orders")
    assert json.loads(cli.good("consumers", "ls", url, "--json"))["consumers"] == []


def test_truncate_cuts_the_served_log(served):
    cli, url = served.cli, served.url
    last = int(cli.good("append", url, stdin=b"1\n2\n3\n").split()[-1])
    told = json.loads(cli.good("truncate", url, "--after", last - 1, "--json"))
    assert told["next_lsn"] == last
    assert cli.good("tail", url, "-n", 1) == b"2\n"
    assert json.loads(cli.good("truncate", url, "--before", last - 1, "--json"))["first_lsn"] == last - 1
    assert str(last - 1) in cli.bad(exits.TRUNCATED, "cat", url, "--start", last - 2)


def test_filters_choose_and_purge_and_compact_work_on_the_served_log(served):
    import asyncio

    import walsvc

    async def prepare() -> int:
        async with walsvc.open(served.url) as log:
            results = [
                await log.topic("many").append(
                    b"%d" % number * 2000, type=number % 2, attributes={"key": f"k{number % 3}"}
                )
                for number in range(60)
            ]
            return results[0].lsn

    first = asyncio.run(prepare())
    cli, url = served.cli, served.url

    def lsns(*options: object) -> list[int]:
        lines = cli.good("cat", url, "--format", "json", "--topic", "many", *options).splitlines()
        return [json.loads(line)["lsn"] - first for line in lines]

    assert lsns("--where", "key=k1", "--type", 0) == list(range(4, 60, 6))
    assert lsns("--since", "2100-01-01") == lsns("--until", "2000-01-01") == []
    assert cli.good("tail", url, "-n", 2, "--where", "key=k2") == b"56" * 2000 + b"\n" + b"59" * 2000 + b"\n"
    told = json.loads(cli.good("purge", url, "--key", "k1", "--topic", "many", "--before", first + 30, "--json"))
    assert told == {"labels": {"key": "k1"}, "topic": "many", "before": first + 30}
    assert b"key='k0'" in cli.good("purge", url, "--key", "k0")
    left = [n for n in range(60) if n % 3 == 2 or (n % 3 == 1 and n >= 29)]
    assert lsns() == left
    for _ in range(2):
        told = json.loads(cli.good("compact", url, "--json"))
        assert told["freed_bytes"] >= 0
        assert told["bytes"] > 0
        assert lsns() == left
    assert "out of range" in cli.bad(exits.USAGE, "purge", url, "--key", "k0", "--before", 10**9)
    assert cli.good("topics", url, "--delete", "many") == b"topic many deleted\n"
    assert lsns() == []
    assert "no topic 'many'" in cli.bad(exits.USAGE, "topics", url, "--delete", "many")


def test_bench_run_measures_a_served_log(served):
    told = json.loads(served.cli.good("bench", "run", "--url", served.url, "--seconds", 0.1, "--tasks", 8, "--json"))
    assert told["records"] > 0
    assert told["syncs"] > 0
    assert told["page_cache_bytes"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        *(["inspect"], ["verify"], ["repair"], ["doctor"], ["migrate"], ["backup", "URL", "copy"]),
        *(["restore", "URL", "copy"], ["restore", "log", "URL"], ["archive", "restore", "file:///a", "URL"]),
    ],
    ids=" ".join,
)
def test_verbs_that_need_the_files_say_so(served, arguments, tmp_path):
    verb, *rest = arguments if "URL" in arguments else [*arguments, "URL"]
    places = {"URL": served.url, "copy": tmp_path / "copy", "log": tmp_path}
    line = served.cli.bad(exits.USAGE, verb, *(places.get(each, each) for each in rest))
    assert "needs the files" in line
    assert "Hint" in line
    assert list(tmp_path.iterdir()) == []


def test_troubles_have_their_exit_codes(served, tmp_path):
    cli = served.cli
    assert "reached" in cli.bad(exits.UNREACHABLE, "cat", f"unix://{tmp_path}/nobody")
    assert "wal+x" in cli.bad(exits.USAGE, "cat", "wal+x://host")
    assert "nowhere" in cli.bad(exits.USAGE, "append", f"{served.url}?nowhere=1")
    assert cli("append", served.url, "--segment-bytes", 65536).returncode == exits.USAGE
    assert cli("append", served.url, "--disk", "threads").returncode == exits.USAGE
    cli.bad(exits.LOCKED, "append", served.data)


def test_wrong_token_is_denied_and_shown_nowhere(tmp_path):
    cli = Cli()
    with tempfile.TemporaryDirectory(prefix="walsvc-") as place:
        secret, wrong = "right-" * 8, "wrong-" * 8
        (tmp_path / "right").write_text(secret)
        right = {"WALSVC_TOKEN": secret}
        server = cli.start("serve", "--data", f"{place}/log", "--unix", f"{place}/socket", environment=right)
        try:
            assert server.stdout is not None
            assert b"listening" in server.stdout.readline()
            url = f"unix://{place}/socket"
            assert cli("append", url, stdin=b"x\n", environment=right).stdout == b"1\n"
            finished = cli("cat", url, environment={"WALSVC_TOKEN": wrong})
            assert finished.returncode == exits.DENIED
            assert b"wrong-" not in finished.stderr
            finished = cli("cat", f"{url}?token_file={tmp_path}/right", environment={"WALSVC_TOKEN": wrong})
            assert (finished.returncode, finished.stdout) == (0, b"x\n")
        finally:
            cli.end()
