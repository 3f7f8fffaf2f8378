"""The logs of a server: one, or one for each namespace, opened when somebody asks and closed when nobody has used it for a while."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from walsvc.api import Log
from walsvc.config import WalConfig, check_namespace
from walsvc.disk.pool import in_thread
from walsvc.errors import Backpressure, BadOption, Closed, Denied, WalError
from walsvc.opening import open_log
from walsvc.service.server.keyed import KeyedLocks
from walsvc.service.server.limits import Limits
from walsvc.service.server.state import News, failure_of
from walsvc.service.server.status import Trouble
from walsvc.visible import counted

Opener = Callable[[WalConfig], Awaitable[Any]]


@dataclasses.dataclass(slots=True)
class OpenLog:
    """A log, how many use it, and when the last one left."""

    log: Log
    users: int = 0
    unused_since: float = 0.0


class Logs:
    """The open logs by namespace; "" is the log of the directory itself.

    Args:
        directory: of the root.
        config: for each log; `namespace` is set as needed.
        several: whether there are namespaces; without, "" is the only log.
        opener: opens the log of a WalConfig; None: from the directory.

    Attributes:
        news: of the logs, for many clients at once.
    """

    def __init__(
        self, directory: str, config: WalConfig, limits: Limits, *, several: bool, opener: Opener | None = None
    ) -> None:
        self.news: News = News()
        self._config = config
        self._limits = limits
        self._several = several
        self._own_opener = opener is not None
        self._opener: Opener = opener or (lambda wanted: open_log(directory, wanted))
        self._opened: dict[str, OpenLog] = {}
        self._turns = KeyedLocks[str]()  # opening and closing
        self._opening = 0
        self._directory = directory
        self._seen: set[str] = set()  # that an opener of the caller's has opened, whose directories nobody knows
        self._owned = True
        self._closed = False

    @classmethod
    def of(cls, log: Log, limits: Limits) -> Logs:
        """A log that the caller has opened and will close."""
        logs = cls(log.path, log.config, limits, several=False)
        logs._opened[""] = OpenLog(log)
        logs._owned = False
        return logs

    def __len__(self) -> int:
        return len(self._opened)

    @property
    def several(self) -> bool:
        """True if there are namespaces."""
        return self._several

    @property
    def open(self) -> Mapping[str, Log]:
        """The open ones."""
        return {name: each.log for name, each in self._opened.items()}

    def all_open(self) -> list[Log]:
        """The open logs."""
        return [each.log for each in self._opened.values()]

    def troubles(self) -> Iterator[Trouble]:
        """The open logs that have failed, and those whose retention has."""
        for name, each in self._opened.items():
            yield from troubles_of(name, each.log)

    def check(self, name: str) -> None:
        """BadOption for a namespace that there cannot be."""
        if name:
            check_namespace(name)
            if not self._several:
                raise BadOption(
                    f"this server has no namespaces, {name!r} was asked for",
                    hint="leave it out, or start the server with --namespaces",
                )

    def take_open(self, name: str) -> Log | None:
        """The log of a namespace for one more user, if it is open and well."""
        each = self._opened.get(name)
        if each is None or self._closed or self._turns.held(name):
            return None
        if failure_of(each.log) is not None and self._owned and self._several and not each.users:
            return None  # nobody has it any more: open it again
        each.users += 1
        return each.log

    async def take(self, name: str, *, make: bool = True) -> Log:
        """The log of a namespace, opened if need be; with `make`, made if it is not there. `leave` must follow.

        Raises:
            What opening raises; Backpressure, Closed. Denied: there is none, and it is not to be made.
        """
        async with self._turns.turn(name):
            if self._closed:
                raise Closed("the server is stopping", hint="connect again later")
            each = self._opened.get(name)
            if each is not None and failure_of(each.log) is not None and self._several and not each.users:
                await self._opened.pop(name).log.close()
                each = None
            if each is None:
                if not make and name and not await self._exists(name):
                    raise Denied(
                        f"there is no namespace {name!r}, and this token may not make it",
                        hint='who has the right "append" makes it by connecting',
                    )
                most = self._limits.open_namespaces
                while len(self._opened) + self._opening >= most:
                    if not await self._close_unused():
                        raise Backpressure(
                            f"{counted(most, 'namespace')} in use",
                            expected=f"at most {most}",
                            hint="close some, or start the server with a higher limit of open_namespaces",
                        )
                self._opening += 1  # counts from here on: others ask while it opens
                try:
                    config = dataclasses.replace(self._config, namespace=name or self._config.namespace)
                    each = self._opened[name] = OpenLog(await self._opener(config))
                finally:
                    self._opening -= 1
                if self._own_opener:
                    self._seen.add(name)
            each.users += 1
            return each.log

    def leave(self, name: str) -> None:
        """One user less."""
        each = self._opened[name]
        each.users -= 1
        each.unused_since = asyncio.get_running_loop().time()

    async def close_idle(self) -> None:
        """Close the namespaces that nobody has used for a while."""
        due = asyncio.get_running_loop().time() - self._limits.namespace_seconds
        for name, each in list(self._opened.items()):
            if self._several and name and not each.users and each.unused_since <= due:
                async with self._turns.turn(name):
                    if name in self._opened and not self._opened[name].users:
                        await self._opened.pop(name).log.close()

    async def _exists(self, name: str) -> bool:
        if name in self._seen:
            return True
        return await in_thread(os.path.isdir, os.path.join(self._directory, name))

    async def _close_unused(self) -> bool:
        """Close the one that has been unused longest; False where all are in use."""
        unused = [(each.unused_since, name) for name, each in self._opened.items() if not each.users and name]
        for _, name in sorted(unused):
            async with self._turns.turn(name):  # it is open, so who has its turn never waits for another one's
                if name in self._opened and not self._opened[name].users:
                    await self._opened.pop(name).log.close()
                    return True
        return False

    async def close(self, timeout: float) -> list[WalError]:
        """Close all of them within `timeout` seconds, those that the caller opened excepted; returns what went wrong."""
        self._closed = True
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        troubles: list[WalError] = []
        await self._turns.keep(end)  # what is being opened is closed, too
        if self._owned:
            mine, self._opened = self._opened, {}  # in one step: `close_idle` beside it closes none of these
            ends = [each.log.close(max(end - loop.time(), 0.0)) for each in mine.values()]
            for result in await asyncio.gather(*ends, return_exceptions=True):
                if isinstance(result, WalError):
                    troubles.append(result)
                elif isinstance(result, BaseException):
                    raise result
        return troubles


def troubles_of(name: str, log: Log) -> Iterator[Trouble]:
    """Parts of one log that have failed."""
    if (failure := failure_of(log)) is not None:
        yield Trouble("log", name, f"namespace {name!r} has failed" if name else "the log has failed", failure)
    elif (reason := log.retention(0).failed) is not None:
        words = f"retention of namespace {name!r} has failed" if name else "retention has failed"
        yield Trouble("retention", name, words, WalError(reason, path=log.path, hint="it is tried again"))
