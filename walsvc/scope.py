"""What can be used with `async with`: logs, writers, consumers, and the opening of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

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


class Opening:
    """What opening a log returns: `async with` it, or await it. Nothing happens before that."""

    def __init__(self, opener: Callable[[], Awaitable[Any]]) -> None:
        self._opener = opener
        self._log: Any = None

    def __await__(self) -> Any:
        return self._opener().__await__()

    async def __aenter__(self) -> Any:
        self._log = await self._opener()
        return self._log

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._log is not None, "__aexit__ without __aenter__"
        await self._log.__aexit__(kind, error, trace)
