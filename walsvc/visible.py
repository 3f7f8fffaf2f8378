"""Text that came from outside, made fit to be shown: names, paths, and what servers say."""

from __future__ import annotations

import re

# \t to \r, ESC and BEL, C1, DEL; marks that turn or hide text (bidi, zero width, line separators, tags); halves of a pair
UNSEEN = (
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)


def counted(number: int, one: str) -> str:
    """A number of things in words: "1 record", "2 records"; `one` is their name in the singular, with a regular plural."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def visible(text: str) -> str:
    r"""`text` on one line, with each character that steers a terminal, or that nobody sees, as an escape: \n, \x1b, \u202e.

    A backslash stays as it is: showing a text twice changes nothing more.
    """
    return text if text.isascii() and text.isprintable() else re.sub(UNSEEN, _escape, text)


def visible_json(text: str) -> str:
    """The same for JSON text: its value stays what it is."""
    return text if text.isascii() and text.isprintable() else re.sub(UNSEEN, _json_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "backslashreplace").decode("ascii")


def _json_escape(found: re.Match[str]) -> str:
    return "".join(f"\\u{int.from_bytes(unit, 'big'):04x}" for unit in _units(found[0]))


def _units(character: str) -> list[bytes]:
    """A character's UTF-16 code units, as JSON escapes it."""
    data = character.encode("utf-16-be", "surrogatepass")
    return [data[at : at + 2] for at in range(0, len(data), 2)]
