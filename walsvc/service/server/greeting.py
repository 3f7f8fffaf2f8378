"""The first frame of a connection: who it is, what its token gives, and the log that it gets."""

from __future__ import annotations

import asyncio
from typing import Protocol

from walsvc.api import Log
from walsvc.errors import BadOption, Denied, ProtocolError, UnsupportedFormat, WalError
from walsvc.service.server.auth import Grant
from walsvc.service.server.roster import Client, Key
from walsvc.service.server.shared import Shared
from walsvc.service.wire.frames import MAGIC, VERSION, Hello
from walsvc.tasks import begin_task

WHY, DENIED = "opening", "denied"


class Guest(Client, Protocol):
    """A connection that is being greeted."""

    def welcome(self, grant: Grant, log: Log) -> None:
        """It may go on, with this log."""

    def resume_reading(self, *why: str) -> None:
        """These reasons to read nothing are gone."""

    def go_on(self) -> None:
        """Do what has come meanwhile."""


class Greeting:
    """The facts that are known of a client.

    Attributes:
        grant: what its token gives; None: no HELLO has come.
        hello: its HELLO, once it was good.
        namespace: whose log it has; None: it has none.
        opening: the log is being opened.
    """

    def __init__(self, shared: Shared) -> None:
        self.grant: Grant | None = None
        self.hello: Hello | None = None
        self.namespace: str | None = None
        self._shared = shared
        self._key: Key | None = None  # under which the roster knows its producer
        self._opening: asyncio.Task[None] | None = None
        self._denying: asyncio.TimerHandle | None = None

    @property
    def opening(self) -> bool:
        """True if the log is being opened."""
        return self._opening is not None

    def greet(self, hello: Hello, guest: Guest) -> None:
        """Answer HELLO. Raises ProtocolError where it is none of this protocol."""
        shared = self._shared
        if hello.magic != MAGIC:
            raise ProtocolError("HELLO does not begin with the protocol's name", expected=MAGIC)
        if not hello.version_min <= VERSION <= hello.version_max:
            error = UnsupportedFormat(
                "the client speaks other versions of the protocol",
                expected=f"version {VERSION}",
                actual=f"{hello.version_min} to {hello.version_max}",
                hint="use a client of this server's version",
            )
            guest.leave(error, "version")
            return
        grant, namespace = shared.grant(hello.token), hello.namespace or ""
        if grant is None or not grant.opens(namespace):
            self._deny(guest, denial(grant, given=bool(hello.token)), "token")
            return
        self.grant, self.hello = grant, hello
        guest.name = f"{grant.name} {hello.client[:64]!r} at {guest.name}"
        try:
            shared.logs.check(namespace)
            if hello.producer:
                self._key = shared.roster.take_over(guest, grant, namespace, hello.producer)
        except WalError as error:
            self._deny(guest, error, "namespace" if isinstance(error, BadOption) else "in_use")
            return
        if (log := shared.logs.take_open(namespace)) is not None:
            self.namespace = namespace
            guest.welcome(grant, log)
        else:
            self._opening = begin_task(self._open(guest, namespace, grant))
            guest.pause_reading(WHY)

    def _deny(self, guest: Guest, error: WalError, reason: str) -> None:
        """Turn the client away, when it is its turn."""
        delay = self._shared.denials.delay()
        if delay <= 0:
            guest.leave(error, reason)
        elif not guest.leaving:
            guest.pause_reading(DENIED)
            self._denying = asyncio.get_running_loop().call_later(delay, guest.leave, error, reason)

    async def _open(self, guest: Guest, namespace: str, grant: Grant) -> None:
        shared = self._shared
        try:
            log = await shared.logs.take(namespace, make=grant.makes)
        except (WalError, OSError) as error:
            self._opening = None
            self._deny(guest, trouble_of(error), "namespace")
            return
        self._opening = None
        if guest.leaving:
            shared.logs.leave(namespace)
            return
        self.namespace = namespace
        guest.welcome(grant, log)
        guest.resume_reading(WHY)
        guest.go_on()

    def end(self, guest: Guest) -> None:
        """The connection is over: it needs no log, and speaks for no producer. Idempotent."""
        if self._opening is not None:
            self._opening.cancel()
        if self._denying is not None:
            self._denying.cancel()
        if self._key is not None:
            self._shared.roster.release(guest, self._key)
        if self.namespace is not None:
            self._shared.logs.leave(self.namespace)
            self.namespace = None


def trouble_of(error: WalError | OSError) -> WalError:
    """The error for the client of a log that cannot be opened."""
    return error if isinstance(error, WalError) else WalError(f"the log cannot be opened: {error.strerror}")


def denial(grant: Grant | None, *, given: bool) -> Denied:
    """The error of a token that is not known or was not given, or does not open the namespace that was asked for."""
    if grant is None:
        text = "the token is not known" if given else "the token is not known: the client has given none"
        return Denied(text, hint="the client takes it from WALSVC_TOKEN, or from token_file")
    names = ", ".join(sorted(map(repr, grant.namespaces or ())))
    hint = f"it opens {names or 'none'}; see its namespaces in the server's token file"
    return Denied(f"token {grant.name!r} does not open this namespace", hint=hint)
