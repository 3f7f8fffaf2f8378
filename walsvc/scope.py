"""The objects that `async with` takes: logs, writers, consumers, and the opening of one."""

from __future__ import annotations

import asyncio
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, Self, TypeVar

from walsvc.errors import WalError
from walsvc.tasks import begin_task


class Scoped(ABC):
    """Closed at the end of its block. An error of the block says more than one of closing, which is then not raised."""

    @abstractmethod
    async def close(self) -> None:
        """Release it. Idempotent."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
            return
        with suppress(WalError):
            await self.close()


class Dropped(Enum):
    """The end of a log that its program drops without close.

    What a log holds on this machine (lock, ring, threads) goes with it. A connection is held by its loop, so such a log closes itself
    in the background, as a StreamWriter of asyncio does.
    """

    SILENT = "it goes"
    TELLS = "it warns"
    CLOSES = "it warns, and closes itself"


class Opened(Scoped):
    """A log that is opened. One that is dropped without close says so, as asyncio's transports do: ResourceWarning "unclosed log".

    Attributes:
        path: of the log, for messages.
    """

    path: str
    _dropped = Dropped.SILENT
    _opened_in = 0  # process that opened it
    _opened_on: asyncio.AbstractEventLoop

    def _opens(self, dropped: Dropped) -> None:
        """It begins here, on the running loop."""
        self._dropped = dropped
        self._opened_in = os.getpid()
        self._opened_on = asyncio.get_running_loop()

    @abstractmethod
    def _is_open(self) -> bool:
        """False if `close` was called, or there is nothing to close any more."""

    def __del__(self) -> None:
        if self._dropped is Dropped.SILENT or self._opened_in != os.getpid() or not self._is_open():
            return
        if self._dropped is Dropped.CLOSES:
            with suppress(RuntimeError):  # the loop is closed, and its connections with it
                self._opened_on.call_soon_threadsafe(close_dropped, self)
        warnings.warn(f"unclosed log {self.path}", ResourceWarning, source=self, stacklevel=2)


def close_dropped(log: Opened) -> None:
    """Close a log that nobody else has any more. Who waits for an append is answered."""
    closing = begin_task(log.close(), name="walsvc closing a dropped log")
    closing.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody is left to be told


class Leaving(Protocol):
    """An object that can be left at the end of an `async with`."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...


LogT_co = TypeVar("LogT_co", bound=Leaving, covariant=True)


class Opening(Generic[LogT_co]):
    """The answer of walsvc.open: `async with` it, or await it. Nothing happens before that."""

    def __init__(self, opener: Callable[[], Awaitable[LogT_co]]) -> None:
        self._opener = opener
        self._log: LogT_co | None = None

    def __await__(self) -> Generator[Any, Any, LogT_co]:
        return self._opener().__await__()

    async def __aenter__(self) -> LogT_co:
        self._log = await self._opener()
        return self._log

    if not TYPE_CHECKING:  # for type checkers it has no other name

        def __getattr__(self, name: str) -> NoReturn:
            """Say what a call on the opening wants: the log."""
            raise AttributeError(
                f"an opening of a log has no {name!r}: await it first, `log = await walsvc.open(...)`, or use "
                "`async with walsvc.open(...) as log`",
                name=name,
                obj=self,
            )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._log is not None, "__aexit__ without __aenter__"
        await self._log.__aexit__(kind, error, trace)
