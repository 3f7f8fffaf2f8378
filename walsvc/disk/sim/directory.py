"""The directory of the simulated disk: names as processes see them, and names as they are on stable storage."""

from __future__ import annotations

from collections.abc import Collection


class SimDirectory:
    """The names: as processes see them, as they are on stable storage, and the operations in between, in order.

    An operation is the set of its changes, name to inode or to None for "gone", applied as a whole: a rename is atomic.
    """

    __slots__ = ("_synced", "durable", "journal", "names")

    def __init__(self, names: dict[str, int] | None = None) -> None:
        self.names: dict[str, int] = dict(names or {})
        self.durable: dict[str, int] = dict(self.names)
        self.journal: list[dict[str, int | None]] = []
        self._synced = 0

    def change(self, changes: dict[str, int | None]) -> None:
        """Do one operation; it is unsynced until `sync`."""
        self.journal.append(changes)
        apply(self.names, changes)

    @property
    def mark(self) -> int:
        """Number of operations ever done: what a sync that begins now covers."""
        return self._synced + len(self.journal)

    def sync(self, mark: int | None = None) -> None:
        """The operations before `mark` are durable (None: all)."""
        count = len(self.journal) if mark is None else max(mark - self._synced, 0)
        for changes in self.journal[:count]:
            apply(self.durable, changes)
        del self.journal[:count]
        self._synced += count

    def inodes(self) -> set[int]:
        """Every inode that has a name, or may have one after a crash."""
        unsynced = {inode for changes in self.journal for inode in changes.values() if inode is not None}
        return {*self.names.values(), *self.durable.values(), *unsynced}

    def fork(self) -> SimDirectory:
        """An independent copy."""
        copy = SimDirectory(self.names)
        copy.durable = dict(self.durable)
        copy.journal = list(self.journal)
        copy._synced = self._synced
        return copy

    def after_crash(self, kept: Collection[int]) -> dict[str, int]:
        """Names at the next boot, where only the operations with these indices in the journal reached the disk, and of
        those only the ones whose predecessors on the same names did, too."""
        names = dict(self.durable)
        broken: set[str] = set()
        for index, changes in enumerate(self.journal):
            if index in kept and not broken.intersection(changes):
                apply(names, changes)
            else:
                broken.update(changes)
        return names


def apply(names: dict[str, int], changes: dict[str, int | None]) -> None:
    """Carry out one directory operation on a mapping of names to inodes."""
    for name, inode in changes.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode
