"""The output of verbs: rich tables on a terminal, plain text in a pipe, JSON on request. rich is imported on first need."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from walsvc.plain import base64_of
from walsvc.visible import counted, visible, visible_json

if TYPE_CHECKING:
    from rich.progress import Progress

    from walsvc.log.offline.backup import Copied

FLUSH_BYTES = 64 * 1024  # as many as a pipe holds by default: more would wait in the kernel anyway


class OutputLost(OSError):
    """Writing to standard output failed, since its device is full, say. The log is not concerned."""


@contextmanager
def writing() -> Iterator[None]:
    """Around every write to standard output. A reader that went away stays a BrokenPipeError, anything else is OutputLost."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(error.errno, f"cannot write to standard output: {error.strerror or error}") from error


class Lines:
    """Bytes on their way to standard output, gathered so that one write(2) carries many short lines.

    Not to be shared between threads. A stalled reader stalls the caller, as with every Unix filter: that is the
    back-pressure which keeps memory bounded.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._out = sys.stdout.buffer

    def write(self, line: bytes) -> None:
        """Add `line` and a newline; goes out at once when FLUSH_BYTES are together."""
        self._buffer += line
        self._buffer += b"\n"
        if len(self._buffer) >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the kernel. Raises BrokenPipeError when the reader is gone."""
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()  # before the write: after a failure the same bytes must not go out a second time
            rest = memoryview(data)
            with writing():
                while rest:  # an unbuffered standard output (python -u) may take less than all
                    rest = rest[self._out.write(rest) :]
        with writing():
            self._out.flush()


def echo(line: str = "") -> None:
    """Write one line to standard output, fit for a terminal whatever names are in it."""
    with writing():
        sys.stdout.write(visible(line) + "\n")


def flush() -> None:
    """Write to the kernel what `echo` has gathered."""
    with writing():
        sys.stdout.flush()


def emit_json(value: object) -> None:
    """Write `value` as one line of JSON; bytes become {"base64": ...}."""
    import json

    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    with writing():
        sys.stdout.write(visible_json(json.dumps(value, default=_json_default, ensure_ascii=not utf8)) + "\n")


def json_line(value: object) -> bytes:
    """`value` as UTF-8 JSON without a newline."""
    import json

    return visible_json(json.dumps(value, default=_json_default, ensure_ascii=False, separators=(",", ":"))).encode()


def _json_default(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64_of(bytes(value))
    raise TypeError(f"{type(value).__name__} has no JSON form")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table: rich on a terminal; aligned columns, one row per line, in a pipe. Numbers are right-aligned."""
    numeric = [all(isinstance(row[i], (int, float, type(None))) for row in rows) for i in range(len(columns))]
    if sys.stdout.isatty():
        _rich_table(columns, rows, numeric, title)
        return
    cells = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        echo("  ".join(padded).rstrip())


def _rich_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], numeric: Sequence[bool], title: str | None
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left")
    for name, right in zip(columns, numeric, strict=True):
        made.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(_text(cell)) for cell in row))  # Text: nothing in the data is taken for markup
    Console().print(made)


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.1f}"
    return visible(str(cell))


def size(count: float) -> str:
    """Bytes for people: 1536 is "1.5 KiB"."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if abs(count) < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def copied(copy: Copied, path: str, *, as_json: bool) -> None:
    """The content of the log at `path`, which was made of another one."""
    if as_json:
        import dataclasses

        emit_json({"path": path, **dataclasses.asdict(copy)})
        return
    held = f"LSN {copy.first_lsn} to {copy.next_lsn - 1}" if copy.next_lsn > copy.first_lsn else "no records"
    echo(f"{held}, {counted(copy.segments, 'segment')}, {size(copy.bytes)} in use: {path}")


def progress(*columns: Any) -> Progress | None:
    """A rich progress display on standard error, or None when that is not a terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), transient=True)


def note(line: str) -> None:
    """Print a line for the user on standard error; nothing where that is not a terminal."""
    if sys.stderr.isatty():
        complain(line)


def complain(line: str) -> None:
    """Print one line on standard error, terminal or not; a closed standard error is no failure."""
    try:
        sys.stderr.write(visible(line) + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def open_closed_streams() -> None:
    """Open /dev/null in the place of a standard stream that is closed (`>&-`): a file of the log must not get its number."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            break
    # The interpreter has set the names of closed streams to None.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # what their encoding does not have is shown as an escape
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def abandon_stdout() -> None:
    """Point standard output at /dev/null, so that the interpreter's last flush does not fail a second time."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass
