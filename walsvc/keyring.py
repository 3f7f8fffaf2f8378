"""The keys of an encrypted log. A key's bytes never appear in a repr, a message, a traceback or a pickle."""

from __future__ import annotations

import base64
import binascii
import enum
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NoReturn

from walsvc.errors import BadOption
from walsvc.extras import need
from walsvc.options import file_of

KEY_BYTES = 32  # AES-256
KEY_ID_BYTES_MAX = 32  # the field in the segment header
KEY_FILE_BYTES_MAX = 1 << 20  # thousands of keys; anything larger is no key file
FORMAT_HINT = (
    "each line: the key's id, a space, 32 bytes in base64; the first key is the current one; # begins a comment"
)


class Secret:
    """Bytes that show themselves to nobody but `reveal`."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = bytes(raw)

    def reveal(self) -> bytes:
        """The bytes, for the one call that needs them: keep them in no variable."""
        return self._raw

    def __repr__(self) -> str:
        return "<secret>"

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("keys cannot be pickled: open the log in the other process with keys of its own")


class KeyRing:
    """The current key, with which new segments are written, and older ones, with which others can still be read.

    Args:
        current: (id, key). The id is a name of 1 to 32 bytes as UTF-8, which is stored in every segment in plain sight;
            one id must stand for one key for ever. The key is exactly 32 random bytes (os.urandom(32)).
        older: more such pairs, in any order.
        plain: whether segments that are not encrypted are read, as a log has them that was plain before. False: such a
            segment is Corruption, so that nobody without a key can put one in the place of another.

    Raises:
        BadOption: an id is empty, too long or there twice, or a key does not have 32 bytes. It names the id only. Or `cryptography`,
            which encrypts, is not installed (`pip install 'walsvc[crypto]'`).

    Key rings as in Tink: ciphertext names its key, so keys change without a pause and old data stays readable.
    """

    __slots__ = ("_keys", "current_id", "plain")

    current_id: str
    plain: bool
    _keys: dict[str, Secret]

    def __init__(
        self, current: tuple[str, bytes], older: Iterable[tuple[str, bytes]] = (), *, plain: bool = True
    ) -> None:
        object.__setattr__(self, "plain", bool(plain))
        object.__setattr__(self, "_keys", {})
        object.__setattr__(self, "current_id", "")
        keys, problem = checked_keys(current, older)
        if problem:
            del current, older  # a traceback may print the variables of this frame
            raise BadOption(problem, hint='KeyRing(current=("2026", key), older=[("2025", old_key)]), keys of 32 bytes')
        need("cryptography", "an encrypted log")
        object.__setattr__(self, "_keys", keys)
        object.__setattr__(self, "current_id", next(iter(keys)))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a KeyRing does not change: make another one, and give it to log.use_keys()")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, plain: bool = True) -> KeyRing:
        """Read a key file; `plain` as above.

        A key a line: its id, white space, and 32 bytes in base64 (`openssl rand -base64 32`). The first key is the current
        one, the others are older. Empty lines and lines that begin with `#` are left out.

        Raises:
            BadOption: it is no regular file, may be read or written by others than its owner, or is not written as said.
                No message holds any of its content but ids. OSError: as the system gives it.
        """
        text, problem = read_key_file(file_of("key file", path))
        if not problem:
            pairs, problem = parse_keys(text)
            del text
            if not problem:
                return cls(pairs[0], pairs[1:], plain=plain)
            del pairs
        raise BadOption(f"key file {os.fspath(path)}: {problem}", path=path)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of all keys, the current one first."""
        return tuple(self._keys)

    def key(self, key_id: str) -> Secret | None:
        """A key by its id, or None."""
        return self._keys.get(key_id)

    def __repr__(self) -> str:
        return f"KeyRing(current={self.current_id!r}, older={list(self.ids[1:])!r})"

    def __copy__(self) -> KeyRing:
        return self

    def __deepcopy__(self, memo: object) -> KeyRing:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a KeyRing cannot be pickled: open the log in the other process with keys of its own")


class Blind(enum.Enum):
    """Instead of keys: encrypted segments are looked at from outside. CRCs, chains and ends can be judged without a key;
    what is inside, metadata included, stays unknown."""

    BLIND = "without keys"


BLIND = Blind.BLIND
Keys = KeyRing | Blind | None


def checked_keys(current: Any, older: Any) -> tuple[dict[str, Secret], str]:
    """The keys by id, or what is wrong with them in words. It raises nothing, since its variables hold keys."""
    keys: dict[str, Secret] = {}
    with suppress(TypeError, ValueError):
        for key_id, key in [current, *older]:
            if not isinstance(key_id, str) or not 1 <= len(key_id.encode("utf-8", "replace")) <= KEY_ID_BYTES_MAX:
                return {}, f"a key's id must be text of 1 to {KEY_ID_BYTES_MAX} bytes as UTF-8"
            if not key_id.isprintable() or key_id != key_id.strip():
                return {}, "a key's id must be printable, without white space at its ends"
            if not isinstance(key, (bytes, bytearray, memoryview)) or len(key) != KEY_BYTES:
                return {}, f"key {key_id!r} must be bytes, exactly {KEY_BYTES} of them"
            if key_id in keys:
                return {}, f"key id {key_id!r} is there twice"
            keys[key_id] = Secret(bytes(key))
        return keys, ""
    return {}, "keys are pairs of id and key"


def read_key_file(path: str | os.PathLike[str]) -> tuple[bytes, str]:
    """A key file's content, or what is wrong with the file in words."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us up
    try:
        status = os.fstat(file)  # of what was opened: nobody can change it under our eyes
        if not stat.S_ISREG(status.st_mode):
            return b"", "it is not a regular file"
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            return b"", f"its mode is {mode:04o}: others than its owner may use it; run: chmod 600 {os.fspath(path)}"
        if status.st_size > KEY_FILE_BYTES_MAX:
            return b"", f"it has {status.st_size} bytes, more than a key file can have"
        return os.read(file, KEY_FILE_BYTES_MAX), ""
    finally:
        os.close(file)


def parse_keys(text: bytes) -> tuple[list[tuple[str, bytes]], str]:
    """The keys in a key file's content, or what is wrong in words. It raises nothing, since its variables hold keys."""
    pairs: list[tuple[str, bytes]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        words = line.split()
        if len(words) != 2:
            return [], f"line {number} is not an id and a key. {FORMAT_HINT}"
        try:
            key_id, key = words[0].decode(), base64.b64decode(words[1], validate=True)
        except (UnicodeDecodeError, binascii.Error):
            return [], f"line {number} cannot be decoded. {FORMAT_HINT}"
        if len(key) != KEY_BYTES:
            return [], f"the key in line {number} does not have {KEY_BYTES} bytes. {FORMAT_HINT}"
        pairs.append((key_id, key))
    return pairs, "" if pairs else f"it holds no key. {FORMAT_HINT}"
