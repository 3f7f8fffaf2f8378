"""The files of a directory that are open for writing, and whether their names are still theirs."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from walsvc.disk.base import Displaced
from walsvc.disk.lock import release, same_file


class Handles:
    """Descriptors that are open for writing. Several threads may call at once.

    Args:
        directory: descriptor of the directory, which its owner closes after `close_all`.

    Attributes:
        lengths: of the files, by descriptor, as they were opened; a log makes none of them shorter.
    """

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._names: dict[int, str | None] = {}  # by descriptor; None where another file has the name by our doing
        self.lengths: dict[int, int] = {}
        self._naming = threading.Lock()  # `check` never sees half of a change of names

    def open(self, name: str, flags: int) -> int:
        """Open a file, and remember it until `close`, whoever loses the descriptor."""
        with self._naming:
            file = os.open(name, flags, 0o644, dir_fd=self._directory)
            self._names[file] = name
            self.lengths[file] = os.fstat(file).st_size
        return file

    def close(self, file: int) -> None:
        """Release a descriptor of `open`; EBADF for any other number, which is never closed."""
        with self._naming:
            if self._names.pop(file, self) is self:
                raise OSError(errno.EBADF, f"{file} is not an open handle of this disk")
            del self.lengths[file]
        os.close(file)

    def close_all(self) -> None:
        """Release every descriptor, and open no more."""
        self._directory = -1
        while self._names:
            release(self._names.popitem()[0])

    @contextmanager
    def moving(self, old: str, new: str | None) -> Iterator[None]:
        """Around the call that gives a file another name, or (None) takes its name away."""
        with self._naming:
            yield
            if new is not None:
                self._rename(new, None)
            self._rename(old, new)

    def _rename(self, old: str, new: str | None) -> None:
        for file, name in list(self._names.items()):
            if name == old:
                self._names[file] = new

    def check(self) -> None:
        """Raise Displaced where a name leads to another file than the one that is open, or the file has lost its end."""
        with self._naming:
            for file, name in self._names.items():
                if name is not None:
                    self._check(file, name)

    def _check(self, file: int, name: str) -> None:
        try:
            named = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            named = None
        opened = os.fstat(file)
        if not same_file(named, opened):
            what = "was removed" if named is None else "was replaced by another file"
            raise Displaced(errno.ESTALE, f"{name} {what}")
        if opened.st_size < self.lengths[file]:
            raise Displaced(errno.ESTALE, f"{name} was cut to {opened.st_size} of its {self.lengths[file]} bytes")
