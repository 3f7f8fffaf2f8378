"""Hints that name calls of Python, turned into hints that name verbs and options."""

from __future__ import annotations

import re

ON_THE_COMMAND_LINE = (
    (r"release\((.+)\), or pass force=True", r"walsvc consumers release PATH \1, or --force"),
    (r"give keys=KeyRing\(\.\.\.\) with that key", "name a file with that key: --key-file"),
    (
        r"close it there first, or open with read_only=True to read beside the writer; for .* opens its URL",
        "end that process first, or give its URL if it is `walsvc serve`; "
        "cat, tail, inspect, verify and backup work beside it",
    ),
    (r"check the path; a log opened with read_only=True is not created", "check the path"),
    (r"read_only=True still reads a log on it", "cat and tail still read a log on it"),
    (r"append with expected= the LSN", "append with --expected the LSN"),
    (
        r"open the log with replicate=(.+), or append with mode=Strict",
        r"walsvc serve --replicate \1, or append with --mode strict",
    ),
    (r"start at first_lsn", "leave --start out to begin with the first"),
    (r"first_lsn(?: - 1)? to next_lsn(?: - 1)?: ", "LSN "),
    (r"truncate_before\((\d+)\)", r"walsvc truncate --before \1"),
    (r"truncate_before", "walsvc truncate --before"),
)


def on_the_command_line(hint: str) -> str:
    """Replace the calls and arguments that a hint names by verbs and options."""
    for call, verb in ON_THE_COMMAND_LINE:
        hint = re.sub(call, verb, hint)
    return hint
