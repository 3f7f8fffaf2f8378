"""The forms of output, value by value."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest

from tests.forked import WITHOUT_UVLOOP, Forked
from walsvc.bench import machine
from walsvc.cli import output
from walsvc.plain import timestamp


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (5 << 40, "5.0 TiB")],
)
def test_size(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
        (1 << 90, str(1 << 90)),
    ],
)
def test_timestamp(ns: int, text: str) -> None:
    assert timestamp(ns) == text


def test_json_of_attributes_that_hold_bytes() -> None:
    assert output.json_line({"a": b"\xff", "b": "é"}) == '{"a":{"base64":"/w=="},"b":"é"}'.encode()
    with pytest.raises(TypeError):
        output.json_line({"a": object()})


def test_plain_table_aligns_and_keeps_one_row_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "count"), [("a", 5), ("long name", 12345)])
    assert capsys.readouterr().out == "name       count\na              5\nlong name  12345\n"


def test_cached_bytes_counts_pages_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))
    counted = machine.cached_bytes(str(tmp_path))
    assert counted is not None
    assert 0 <= counted <= 102_400
    assert machine.cached_bytes(str(tmp_path / "missing")) is None


def test_tables_and_progress_on_a_terminal(log: Path) -> None:
    """On a terminal there is a drawn table, and standard error shows the progress of a bench."""
    bench = ["bench", "run", str(log.parent), "--seconds", "0.5"]
    for arguments, drawn in ((["inspect", str(log)], "─"), (bench, "records/s")):
        master, slave = pty.openpty()
        screen = {"TERM": "xterm", "COLUMNS": "150", "LINES": "50"}
        process = Forked(*arguments, before=WITHOUT_UVLOOP, environment=screen, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # EIO: the terminal's last user is gone
                break
            if not piece:
                break
            shown += piece
        os.close(master)
        assert process.wait(timeout=120) == 0, shown
        assert drawn in shown.decode()
