"""Commands of the Redis front, and those that a client collects between MULTI and EXEC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from walsvc.service.wire.methods import READ

if TYPE_CHECKING:
    from walsvc.service.fronts.redis.requests import Command


class Entry(NamedTuple):
    """A command.

    Attributes:
        call: takes the client and the command, and returns the answer: at once, by a coroutine, or (XADD without options) by an awaitable of
            the log's.
        arity: words, the command itself included; negative: at least so many, as in Redis's COMMAND.
        right: that a token must have; None: any may, and the log is not needed.
        waits: the call is a coroutine, and commands before it are answered first.
        early: also for those that have not shown a token.
        keys: place of the first key, of the last one, and the step between them, as in Redis's COMMAND.
        joins: EXEC makes it a part of its group.
        idle: it changes nothing, though its right is not the one to read.
    """

    call: Callable[[Any, Command], Any]
    arity: int
    right: str | None
    waits: bool = True
    early: bool = False
    keys: tuple[int, int, int] = (0, 0, 0)
    joins: bool = False
    idle: bool = False

    @property
    def looks(self) -> bool:
        """True if the command changes nothing, whichever client asks."""
        return self.idle or self.right == READ


class Kept(NamedTuple):
    """A command that waits for EXEC."""

    entry: Entry
    command: Command


@dataclass(slots=True)
class Collected:
    """The commands of a client since MULTI.

    Attributes:
        commands: to be done together.
        bytes: that they take.
        broken: one of them was refused, so that EXEC does nothing.
    """

    commands: list[Kept] = field(default_factory=list)
    bytes: int = 0
    broken: bool = False

    @property
    def looked_behind(self) -> bool:
        """True if the last command looks at what those before it write."""
        return (
            bool(self.commands)
            and not self.commands[-1].entry.joins
            and any(each.entry.joins for each in self.commands)
        )
