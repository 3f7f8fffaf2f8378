"""Whole: what holds when an exception comes between two lines of the log's own code.

A signal handler may raise at any moment (KeyboardInterrupt, a timeout, sys.exit), and memory may run out at any call. The rule
is the same for all of them: the call is whole, or it is taken back, or the log fails, which tells everybody who waits. Four
means keep it, and each step of the log uses one of them:

1. Published at once: new objects are made first, and one assignment makes them valid. Nothing is left behind by halves.
2. `whole`: a step that changes several things. An exception out of it that is no answer (no WalError) fails the log at
   once, before anything else runs on the loop. So such a step raises its answers before its first change, or after taking it back.
   One guard on a way is enough, the outermost: a step that only such steps call has none, since each costs as much as some lines.
3. Twice: a callback of the loop that tells one waiter is handed over two times, and one of the disk is called again where it was cut
   short (walsvc.tasks.insistent). The second time it finds nothing left to do. An exception may come before its first line.
4. Derived: whether work is under way is asked of the work's task, and never kept in a flag that its last line clears.

Tasks of the log's own are `whole` by walsvc.log.commit.background.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from walsvc.errors import WalError

P = ParamSpec("P")
T = TypeVar("T")


class Fails(Protocol):
    """The part that hears of a step that was cut short: the log's Health."""

    def broken(self, what: str, error: BaseException) -> None:
        """Fail the log: a step was cut short, so memory and disk may disagree."""


class Guarded(Protocol):
    """An object with a method that is `whole`."""

    @property
    def _health(self) -> Fails: ...


Owner = TypeVar("Owner", bound=Guarded)


class Whole:
    """`with health.whole("doing it"):` is the same for a few lines."""

    __slots__ = ("_health", "_what")

    def __init__(self, health: Fails, what: str) -> None:
        self._health = health
        self._what = what

    def __enter__(self) -> None:
        """Nothing is changed yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, WalError):
            self._health.broken(f"{self._what} was cut short", error)


def whole(what: str) -> Callable[[Callable[Concatenate[Owner, P], T]], Callable[Concatenate[Owner, P], T]]:
    """Make a method fail the log where an exception cuts it short.

    Args:
        what: it does, for people.
    """

    def decorate(step: Callable[Concatenate[Owner, P], T]) -> Callable[Concatenate[Owner, P], T]:
        @wraps(step)
        def guarded(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return step(self, *args, **kwargs)
            except WalError:
                raise
            except BaseException as error:
                self._health.broken(f"{what} was cut short", error)
                raise

        return guarded

    return decorate
