"""What can be used with `async with`: logs and consumers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from types import TracebackType
from typing import Self

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
