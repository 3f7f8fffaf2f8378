"""Maps of the metadata from names to LSNs: where consumers stand, holds, purge marks, floors of topics."""

from __future__ import annotations

from collections.abc import Collection, Mapping

ENTRY_OVERHEAD = 5 + 9  # msgpack bytes of a map entry besides its name, at most


class NamedLsns(dict[str, int]):
    """LSNs by name. Entries come and go by `enter`, which counts them.

    Args:
        entries: to begin with; `encoded_bytes` is right for them.

    Attributes:
        encoded_bytes: msgpack bytes of the entries, at most.
    """

    __slots__ = ("encoded_bytes",)

    def __init__(self, entries: Mapping[str, int] = {}, encoded_bytes: int = 0) -> None:
        super().__init__(entries)
        self.encoded_bytes: int = encoded_bytes

    def enter(self, entries: Mapping[str, int | None]) -> None:
        """Set entries; None deletes one, if it is there."""
        for name, lsn in entries.items():
            if lsn is not None:
                if name not in self:
                    self.encoded_bytes += entry_bytes_max(name)
                    self._came(name)
                self[name] = lsn
            elif self.pop(name, None) is not None:
                self.encoded_bytes -= entry_bytes_max(name)
                self._went(name)

    def _came(self, name: str) -> None:
        """A name is new."""

    def _went(self, name: str) -> None:
        """A name was deleted."""

    def copy(self) -> NamedLsns:
        """A copy that later changes of this one do not touch."""
        return NamedLsns(self, self.encoded_bytes)


class Positions(NamedLsns):
    """Where consumers stand; a name is "<topic number>/<consumer>"."""

    __slots__ = ("_by_topic",)

    def __init__(
        self,
        entries: Mapping[str, int] = {},
        encoded_bytes: int = 0,
        by_topic: dict[int, set[str]] | None = None,
    ) -> None:
        super().__init__(entries, encoded_bytes)
        self._by_topic = {} if by_topic is None else by_topic

    def of_topic(self, number: int) -> Collection[str]:
        """Names of a topic's consumers."""
        return self._by_topic.get(number, ())

    def copy(self) -> Positions:
        """A copy that later changes of this one do not touch."""
        return Positions(self, self.encoded_bytes, {number: set(names) for number, names in self._by_topic.items()})

    def _came(self, name: str) -> None:
        self._by_topic.setdefault(topic_of(name), set()).add(name)

    def _went(self, name: str) -> None:
        names = self._by_topic[topic_of(name)]
        names.remove(name)
        if not names:
            del self._by_topic[topic_of(name)]


def entry_bytes_max(name: str) -> int:
    """msgpack bytes of a map's entry with this name, at most."""
    return len(name.encode()) + ENTRY_OVERHEAD


def topic_of(key: str) -> int:
    """Number of the topic that a consumer's key in `positions`, or a purge mark's name, begins with."""
    return int(key.partition("/")[0])
