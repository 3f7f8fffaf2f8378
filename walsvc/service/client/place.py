"""The place of a consumer, as its client knows it: the server has the true one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False, repr=False)
class Place:
    """Where a consumer stands, as far as its client has heard.

    Attributes:
        position: LSN behind the last record that is known to be acknowledged.
        following: LSN behind the last record that was delivered here.
        floor: LSN below which all of its topic is hidden.
        checked: LSN below which the server has said that nothing is lost.
        cuts: how often the log's end was cut.
    """

    position: int = 0
    following: int = 0
    floor: int = 0
    checked: int = 0
    cuts: int = 0

    def pass_by(self, position: int) -> None:
        """Everything below `position` is acknowledged."""
        self.position = max(self.position, position)

    def move(self, position: int) -> None:
        """Go on there."""
        self.position = self.following = position

    def cut(self, end: int) -> None:
        """The log ends before LSN `end` now."""
        self.cuts += 1
        self.position, self.following = min(self.position, end), min(self.following, end)
