"""What can be used with `async with`: logs, writers, consumers, and the opening of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, Self, TypeVar

from walsvc.errors import WalError


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


class Leaving(Protocol):
    """An object that can be left at the end of an `async with`."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...


LogT_co = TypeVar("LogT_co", bound=Leaving, covariant=True)


class Opening(Generic[LogT_co]):
    """What opening a log returns: `async with` it, or await it. Nothing happens before that."""

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
