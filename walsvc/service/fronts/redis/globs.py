r"""Redis's patterns of names: `*`, `?`, `[abc]`, `[^a-z]`, and `\` before a character that stands for itself."""

from __future__ import annotations

import re


def glob(pattern: bytes) -> re.Pattern[bytes]:
    """Turn a pattern into an expression for `fullmatch`.

    What stands between two stars is matched where it comes first and never looked for again (an atomic group, as in
    fnmatch.translate), so that no pattern takes longer than length times length.
    """
    parts: list[list[bytes]] = [[]]
    place = 0
    while place < len(pattern):
        letter = pattern[place : place + 1]
        place += 1
        if letter == b"*":
            if parts[-1] or len(parts) == 1:
                parts.append([])
        elif letter == b"?":
            parts[-1].append(b".")
        elif letter == b"[":
            piece, place = among(pattern, place)
            parts[-1].append(piece)
        else:
            if letter == b"\\" and place < len(pattern):
                letter, place = pattern[place : place + 1], place + 1
            parts[-1].append(re.escape(letter))
    first, *middle = (b"".join(part) for part in parts)
    if not middle:
        return re.compile(first, re.DOTALL)
    last = middle.pop()
    return re.compile(first + b"".join(b"(?>.*?" + part + b")" for part in middle) + b".*" + last, re.DOTALL)


def among(pattern: bytes, place: int) -> tuple[bytes, int]:
    """The characters of a bracket that begins before `place`, as an expression, and where it ends. A bracket that is not closed
    ends with the pattern."""
    negated = pattern[place : place + 1] == b"^"
    place += negated
    pieces: list[bytes] = []
    while place < len(pattern) and pattern[place : place + 1] != b"]":
        if pattern[place : place + 1] == b"\\" and place + 1 < len(pattern):
            place += 1
        low = high = pattern[place]
        place += 1
        if pattern[place : place + 1] == b"-" and place + 1 < len(pattern):
            high = pattern[place + 1]
            place += 2
        low, high = sorted((low, high))
        pieces.append(b"\\x%02x-\\x%02x" % (low, high))
    if not pieces:
        return (b"." if negated else rb"[^\x00-\xff]"), place + 1
    return b"[" + b"^" * negated + b"".join(pieces) + b"]", place + 1
