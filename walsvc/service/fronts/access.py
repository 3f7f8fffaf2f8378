"""The interface of a server for its fronts: rights of a token, the log of a namespace, and the bounds on all clients of a front."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from walsvc.errors import Backpressure, Denied
from walsvc.interface import Log
from walsvc.service.server.auth import Grant
from walsvc.service.server.budget import Budget
from walsvc.topics.names import WHOLE_LOG, key_of


class Access(Protocol):
    """A server, as its fronts see it. Loop thread only."""

    @property
    def budget(self) -> Budget:
        """The bytes that the server holds of all its clients."""
        ...

    def grant(self, token: str | None) -> Grant | None:
        """Rights and namespaces of a token; None: it is unknown. Where the server has no tokens, every client has all rights."""
        ...

    async def denied(self) -> None:
        """Wait until one more client is to be told that its token is not good: those of all fronts and of the server's own protocol are
        told at a steady rate, together."""
        ...

    def take_open(self, namespace: str) -> Log | None:
        """Take the log of a namespace, if it is open; `leave` must follow then."""
        ...

    async def take(self, namespace: str, *, make: bool) -> Log:
        """Take the log of a namespace, opened, and made if that is allowed; `leave` must follow."""
        ...

    def leave(self, namespace: str) -> None:
        """Count one user of the namespace less."""
        ...

    def making_consumer(self, log: Log, topic: str | None, name: str) -> AbstractContextManager[None]:
        """Count a consumer, which the block may make, against its limit. Raises Backpressure."""
        ...

    def admit(self, grant: Grant, size: int) -> float:
        """Count a request with so many bytes against the rate of its token: 0. Or the seconds after which it may be asked again: it was too
        early, and is not counted."""
        ...


def kept_options(log: Any, topic: str | None, consumer: str) -> Mapping[str, Any]:
    """The options with which a shared consumer of a log that is open here was opened last; none where there is no such consumer."""
    metadata = log.writer.core.metadata
    number = WHOLE_LOG if topic is None else metadata.topics.get(topic)
    window = None if number is None else metadata.queues.get(key_of(number, consumer))
    return {} if window is None else window.options


def check_right(grant: Grant, right: str, what: str) -> None:
    """Raise Denied unless the token has a right; `what` says what for."""
    if right not in grant.rights:
        raise Denied(f"this token may not {what}", hint=f'it needs the right "{right}"')


class Taken:
    """The log of a namespace, for as long as a block uses it."""

    __slots__ = ("_access", "_grant", "_namespace")

    def __init__(self, access: Access, grant: Grant, namespace: str) -> None:
        self._access = access
        self._grant = grant
        self._namespace = namespace

    async def __aenter__(self) -> Log:
        log = self._access.take_open(self._namespace)
        return await self._access.take(self._namespace, make=self._grant.makes) if log is None else log

    async def __aexit__(self, *_: object) -> None:
        self._access.leave(self._namespace)


def log_of(access: Access, grant: Grant, namespace: str) -> Taken:
    """The log of a namespace, for `async with`. Raises Denied, and what opening raises."""
    if not grant.opens(namespace):
        raise Denied(
            f"token {grant.name!r} does not open this namespace", hint="see its namespaces in the server's token file"
        )
    return Taken(access, grant, namespace)


class Room:
    """A front's share of the server's budget: bytes that its clients have sent, or that wait to be sent to them. Over the limit a request is
    refused, not delayed: requests that hold a part each and wait for the rest would wait for each other.

    Attributes:
        taken: bytes that this front holds.
    """

    def __init__(self, budget: Budget) -> None:
        self.taken: int = 0
        self._budget = budget

    def take(self, size: int) -> None:
        """Take `size` bytes. Raises Backpressure where there is no room, but for the first."""
        budget = self._budget
        if budget.bytes and budget.bytes + size > budget.limit:
            raise Backpressure(
                f"{budget.bytes} bytes of requests are under way",
                expected=f"at most {budget.limit}",
                hint="try again in a moment",
            )
        self.taken += size
        budget.charge(size)

    def give(self, size: int) -> None:
        """Give bytes back."""
        self.taken -= size
        self._budget.charge(-size)
