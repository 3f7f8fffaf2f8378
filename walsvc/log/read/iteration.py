"""The asynchronous iteration that `read` and `follow` return: its caller may give up waiting, and go on.

An asynchronous generator is finished once a wait in it was cancelled: after one timeout of its caller the next call says that
nothing more comes. So these are objects. Where they stand is kept in a source, whose `take` may be cancelled and called again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from types import TracebackType
from typing import Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """The source of an iteration's items."""

    async def take(self) -> Iterator[T_co] | None:
        """The next items, for which it waits; None: no more ever come. Cancelled or failed, it takes nothing, and the next
        call tries again."""

    def close(self) -> None:
        """The iteration has ended: let go of what is held for it."""

    def abandoned(self) -> None:
        """The iteration was dropped before its end, perhaps in another thread."""


class Iteration(AsyncGenerator[T, None]):
    """The items of a source, one by one. It has the interface of an asynchronous generator, for contextlib.aclosing.

    A cancelled call of `__anext__` loses no item: the next call goes on. An error does not end it either: it is raised
    again as long as what has caused it lasts.
    """

    def __init__(self, source: Source[T]) -> None:
        self._source = source
        self._ready: Iterator[T] = iter(())
        self._taking = False
        self._ended = False

    async def __anext__(self) -> T:
        while True:
            for item in self._ready:
                return item
            self._ready = await self._taken()

    async def _taken(self) -> Iterator[T]:
        if self._ended:
            raise StopAsyncIteration
        self._check_idle()
        self._taking = True
        try:
            items = await self._source.take()
        finally:
            self._taking = False
        if items is None:
            self._end()
            raise StopAsyncIteration
        return items

    async def asend(self, value: None) -> T:
        """The next item, as `__anext__`."""
        return await self.__anext__()

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> T:
        """End it, and raise the exception."""
        await self.aclose()
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        raise error.with_traceback(tb)

    async def aclose(self) -> None:
        """End it. Idempotent."""
        self._check_idle()
        self._end()

    def _check_idle(self) -> None:
        if self._taking:
            raise RuntimeError("another task waits for the next record of this iteration")

    def _end(self) -> None:
        self._ready = iter(())
        if not self._ended:
            self._ended = True
            self._source.close()

    def __del__(self) -> None:
        if not self._ended:
            self._source.abandoned()
