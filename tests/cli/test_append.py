"""append, and reading back what it stored."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from .conftest import Cli


def test_lines_become_records_and_lsns_come_back(walsvc_on_both_loops: Cli, tmp_path: Path) -> None:
    walsvc = walsvc_on_both_loops
    assert walsvc.good("append", tmp_path / "log", stdin=b"one\ntwo\n\nfour") == b"1\n2\n3\n4\n"
    assert walsvc.good("append", tmp_path / "log", stdin=b"five\n") == b"5\n"
    assert walsvc.good("cat", tmp_path / "log") == b"one\ntwo\n\nfour\nfive\n"


def test_no_input_creates_an_empty_log(walsvc: Cli, tmp_path: Path) -> None:
    assert walsvc.good("append", tmp_path / "log") == b""
    assert walsvc.good("cat", tmp_path / "log") == b""


def test_every_byte_but_the_newline_is_kept(walsvc: Cli, tmp_path: Path) -> None:
    line = bytes(each for each in range(256) if each != 10) + b"\r"
    walsvc.good("append", tmp_path / "log", stdin=line + b"\n" + line)
    assert walsvc.good("cat", tmp_path / "log") == line + b"\n" + line + b"\n"


def test_more_lines_than_the_window_keep_their_order(walsvc: Cli, tmp_path: Path) -> None:
    lines = [b"%d" % n for n in range(1, 30_001)]
    printed = walsvc.good("append", tmp_path / "log", stdin=b"\n".join(lines))
    assert printed.split() == lines
    assert walsvc.good("cat", tmp_path / "log").split() == lines


def test_relaxed_records_are_there_when_the_command_ends(walsvc: Cli, tmp_path: Path) -> None:
    assert walsvc.good("append", tmp_path / "log", "--mode", "relaxed", stdin=b"a\nb\n") == b"1\n2\n"
    assert walsvc.good("cat", tmp_path / "log") == b"a\nb\n"


def test_batches_are_acknowledged_line_by_line(walsvc: Cli, tmp_path: Path) -> None:
    lines = b"".join(b"%d\n" % n for n in range(1, 11))
    assert walsvc.good("append", tmp_path / "log", "--batch", 4, stdin=lines) == lines
    assert walsvc.good("cat", tmp_path / "log") == lines
    groups = json.loads(walsvc.good("inspect", tmp_path / "log", "--groups", "--json"))["groups"]
    held = [(group["first_lsn"], group["first_lsn"] + group["records"]) for group in groups if group["records"]]
    for first in (1, 5, 9):  # each batch lies in one group: atomic
        assert any(low <= first and min(first + 4, 11) <= high for low, high in held)


def test_quiet_prints_nothing(walsvc: Cli, tmp_path: Path) -> None:
    assert walsvc.good("append", tmp_path / "log", "-q", stdin=b"a\n") == b""
    assert walsvc.good("cat", tmp_path / "log") == b"a\n"


def test_file_and_whole(walsvc: Cli, tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_bytes(b"a\nb\n")
    assert walsvc.good("append", tmp_path / "log", "--file", source) == b"1\n2\n"
    assert walsvc.good("append", tmp_path / "log", "--file", source, "--whole") == b"3\n"
    assert walsvc.good("cat", tmp_path / "log", "--start", 3) == b"a\nb\n\n"


def test_a_key_that_was_there_gives_the_first_lsn_and_writes_nothing(walsvc: Cli, tmp_path: Path) -> None:
    for topic, lsn in (([], b"1\n"), (["--topic", "t"], b"2\n")):
        for payload in (b"first", b"second"):
            call = ("append", tmp_path / "log", "--whole", "--dedupe", "k", *topic)
            assert walsvc.good(*call, stdin=payload) == lsn
    assert walsvc.good("cat", tmp_path / "log") == b"first\nfirst\n"
    assert walsvc("append", tmp_path / "log", "--dedupe", "k", stdin=b"x\n").returncode == 2


def test_an_expectation_that_fails_writes_nothing_and_ends_with_13(walsvc: Cli, tmp_path: Path) -> None:
    call = ("append", tmp_path / "log", "--whole", "--expected", "0")
    assert walsvc.good(*call, stdin=b"first") == b"1\n"
    walsvc.bad(13, *call, stdin=b"second")
    assert walsvc.good("cat", tmp_path / "log") == b"first\n"


def test_json_lines_are_stored_as_given(walsvc: Cli, tmp_path: Path) -> None:
    lines = b'{"b": 1,  "a":[null]}\n"text"\n\n17\n'
    assert walsvc.good("append", tmp_path / "log", "--json", stdin=lines) == b"1\n2\n3\n"
    assert walsvc.good("cat", tmp_path / "log") == lines.replace(b"\n\n", b"\n")


def test_a_line_that_is_not_json_ends_it_after_the_lines_before(walsvc: Cli, tmp_path: Path) -> None:
    finished = walsvc("append", tmp_path / "log", "--json", stdin=b'1\n{"a":\n3\n')
    assert (finished.returncode, finished.stdout) == (2, b"1\n")
    assert finished.stderr.startswith(b"walsvc: line 2 of the input is not JSON")
    assert walsvc.good("cat", tmp_path / "log") == b"1\n"


@pytest.mark.parametrize("newline", [b"\n", b""])
def test_a_line_over_the_limit_ends_it_after_the_lines_before(walsvc: Cli, tmp_path: Path, newline: bytes) -> None:
    over = b"x" * 1001 + newline
    finished = walsvc("append", tmp_path / "log", "--max-record-bytes", 1000, stdin=b"y" * 1000 + b"\n" + over)
    assert (finished.returncode, finished.stdout) == (1, b"1\n")
    assert finished.stderr.startswith(b"walsvc: line 2 of the input is too long")
    assert b"Hint: " in finished.stderr
    assert finished.stderr.count(b"\n") == 1
    assert walsvc.good("cat", tmp_path / "log") == b"y" * 1000 + b"\n"


def test_an_endless_line_is_refused_without_reading_it_all(walsvc: Cli, tmp_path: Path) -> None:
    process = walsvc.start("append", tmp_path / "log", "--max-record-bytes", 4096)
    assert process.stdin is not None
    with pytest.raises(BrokenPipeError):  # because the reader goes away
        process.stdin.writelines(itertools.repeat(b"x" * 65536))
    assert process.wait(timeout=120) == 1


def test_a_whole_input_over_the_limit_is_refused(walsvc: Cli, tmp_path: Path) -> None:
    line = walsvc.bad(1, "append", tmp_path / "log", "--whole", "--max-record-bytes", 10, stdin=b"12345678901")
    assert "too large for one record" in line


def test_lsns_arrive_while_the_input_is_still_open(walsvc_on_both_loops: Cli, tmp_path: Path) -> None:
    process = walsvc_on_both_loops.start("append", tmp_path / "log")
    assert process.stdin is not None
    assert process.stdout is not None
    for number in range(1, 4):
        process.stdin.write(b"line\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"%d\n" % number
    process.stdin.close()
    assert process.wait(timeout=120) == 0


@pytest.mark.parametrize(
    "line", [b"NaN", b"[-Infinity]", b"\xef\xbb\xbf1", b"1\0", '"x"'.encode("utf-16"), b'"\xff"', b"[" * 100_000]
)
def test_what_only_python_takes_for_json_is_refused(walsvc: Cli, tmp_path: Path, line: bytes) -> None:
    finished = walsvc("append", tmp_path / "log", "--json", stdin=b"1\n" + line + b"\n")
    assert (finished.returncode, finished.stdout) == (2, b"1\n")
    assert finished.stderr.startswith(b"walsvc: line 2 of the input is not JSON")


def test_an_integer_of_any_length_is_json(walsvc: Cli, tmp_path: Path) -> None:
    assert walsvc.good("append", tmp_path / "log", "--json", stdin=b"1" * 10_000 + b"\n") == b"1\n"


def test_topic_type_and_labels(walsvc: Cli, tmp_path: Path) -> None:
    options = ["--topic", "orders", "--type", 7, "--label", "customer=17", "--label", "eu=true", "--label", "name=x"]
    assert walsvc.good("append", tmp_path / "log", *options, stdin=b"a\nb\n") == b"1\n2\n"
    walsvc.good("append", tmp_path / "log", "--topic", "orders", "--batch", 2, "-q", stdin=b"c\nd\n")
    walsvc.good("append", tmp_path / "log", "-q", stdin=b"e\n")
    told = [json.loads(line) for line in walsvc.good("cat", tmp_path / "log", "--json").splitlines()]
    assert [(each["topic"], each["type"]) for each in told] == [("orders", 7)] * 2 + [("orders", 0)] * 2 + [(None, 0)]
    assert told[0]["attributes"] == {"customer": 17, "eu": True, "name": "x"}
    assert walsvc.good("cat", tmp_path / "log", "--where", "customer=17", "--type", 7) == b"a\nb\n"
    assert b"neither --type nor --label" in walsvc("append", tmp_path / "log", "--batch", 2, "--type", 7).stderr
    assert b"NAME=VALUE" in walsvc("append", tmp_path / "log", "--label", "x").stderr


def test_minus_as_file_is_standard_input(walsvc: Cli, tmp_path: Path) -> None:
    assert walsvc.good("append", tmp_path / "log", "-f", "-", stdin=b"a\n") == b"1\n"
    assert walsvc.good("append", tmp_path / "log", "-f", "-", "--whole", stdin=b"a\nb\n") == b"2\n"


def test_json_is_short_for_format_json(walsvc: Cli, log: Path) -> None:
    for verb in ("cat", "tail"):
        assert walsvc.good(verb, log, "--json") == walsvc.good(verb, log, "--format", "json")
