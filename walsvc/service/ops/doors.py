"""A server as its fronts see it: walsvc.service.fronts.access.Access."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from walsvc.interface import Log
from walsvc.service.server.auth import Grant
from walsvc.service.server.budget import Budget
from walsvc.service.server.server import Server


class ServerAccess:
    """Gives fronts the tokens, namespaces and limits of a server."""

    def __init__(self, server: Server) -> None:
        self._shared = server.shared

    @property
    def budget(self) -> Budget:
        """See Access."""
        return self._shared.budget

    def grant(self, token: str | None) -> Grant | None:
        """See Access."""
        return self._shared.grant(token)

    async def denied(self) -> None:
        """See Access."""
        await self._shared.denials.wait()

    def take_open(self, namespace: str) -> Log | None:
        """See Access."""
        return self._shared.logs.take_open(namespace)

    async def take(self, namespace: str, *, make: bool) -> Log:
        """See Access."""
        logs = self._shared.logs
        logs.check(namespace)
        return await logs.take(namespace, make=make)

    def leave(self, namespace: str) -> None:
        """See Access."""
        self._shared.logs.leave(namespace)

    def making_consumer(self, log: Any, topic: str | None, name: str) -> AbstractContextManager[None]:
        """See Access."""
        return self._shared.consumers.taking(log, topic, name)

    def admit(self, grant: Grant, size: int) -> float:
        """See Access."""
        if not grant.limited:
            return 0.0
        pause = self._shared.rates.pause(grant)
        if pause <= 0:
            self._shared.rates.spend(grant, 1, size)
        return pause
