"""A client: its rights, its log, and what it said about itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from walsvc.errors import BadOption, Denied
from walsvc.service.fronts.redis.members import Members, members_of
from walsvc.service.fronts.redis.replies import Failure
from walsvc.service.server.auth import Grant
from walsvc.tasks import begin_task

if TYPE_CHECKING:
    from walsvc.interface import Log, Topic
    from walsvc.service.fronts.redis.collected import Collected
    from walsvc.service.server.shared import Shared

NO_AUTH = "NOAUTH Authentication required."
WRONG_PASS = "WRONGPASS invalid username-password pair or user is disabled."
DEFAULT_USER = b"default"


@dataclass(slots=True, eq=False)
class Client:
    """One client.

    Attributes:
        shared: of the server.
        number: of its connection.
        name: that it gave itself.
        about: what its library says of itself.
        resp: version of the protocol for answers, 2 or 3.
        grant: what it may do; None: it has shown no token.
        namespace, opened: whose log it has, and the log; None: none yet.
        strange_since: since when it has shown no token, in the loop's time, if it has not.
        written: LSN of its last entry.
        leaving: it has said QUIT.
        collected: what it has said since MULTI; None: it has not said MULTI.
        watched: LSNs with which the streams ended that it watches, by name.
    """

    shared: Shared
    number: int = 0
    name: bytes = b""
    about: dict[bytes, bytes] = field(default_factory=dict)
    resp: int = 2
    grant: Grant | None = None
    namespace: str | None = None
    opened: Any = None
    strange_since: float = 0.0
    written: int = 0
    leaving: bool = False
    collected: Collected | None = None
    watched: dict[str, int] = field(default_factory=dict)
    _topics: dict[bytes, Topic] = field(default_factory=dict)

    def begin(self) -> None:
        """Begin as number so-and-so, and as a stranger."""
        self.number = self.shared.roster.accepted
        self._be_strange()

    def begin_again(self) -> None:
        """RESET: be again as one that has just come."""
        self.name, self.resp, self.collected = b"", 2, None
        self.about.clear()
        self.watched.clear()
        if self.grant is not None:  # a stranger gets no more time by it
            self.leave()
            self._be_strange()

    def _be_strange(self) -> None:
        """Have what a client has that has shown no token: where the server has none, the log of the directory itself, if that is open."""
        self.strange_since = asyncio.get_running_loop().time()
        self.grant = self.shared.grant(None)
        if self.grant is not None and (log := self.shared.logs.take_open("")) is not None:
            self._have("", log)

    async def show(self, user: bytes, token: bytes) -> None:
        """AUTH: show a token. The user's name is the namespace, `default` for the log of the directory itself."""
        grant = self.shared.grant(token.decode("utf-8", "surrogateescape"))
        namespace = "" if user == DEFAULT_USER else user.decode("utf-8", "surrogateescape")
        if grant is None or not grant.opens(namespace):
            await self.shared.denials.wait()
            raise Failure(WRONG_PASS)
        await self._enter(namespace, grant)

    async def select(self, index: int) -> None:
        """SELECT: another namespace, whose name is the number; 0 is the log of the directory itself."""
        namespace = str(index) if index else ""
        grant = self.granted()
        if not grant.opens(namespace):
            raise Failure("NOPERM this token does not open that database")
        try:
            await self._enter(namespace, grant)
        except BadOption:
            raise Failure("ERR DB index is out of range") from None

    async def _enter(self, namespace: str, grant: Grant) -> None:
        self.shared.logs.check(namespace)
        try:
            log = await self.shared.logs.take(namespace, make=grant.makes)
        except Denied as error:
            raise Failure(f"NOPERM {error}") from None
        self.leave()
        self.grant = grant
        self._have(namespace, log)

    def _have(self, namespace: str, log: Any) -> None:
        self.namespace, self.opened = namespace, log
        self.members.clients += 1

    def granted(self) -> Grant:
        """Rights and namespaces of the client. Raises Failure where it has shown no token."""
        if self.grant is None:
            raise Failure(NO_AUTH)
        return self.grant

    @property
    def ready(self) -> bool:
        """True if the client has a log."""
        return self.opened is not None

    async def take_log(self) -> None:
        """Take the log of the directory itself, unless the client has a log."""
        if self.opened is None:
            grant = self.granted()
            if not grant.opens(""):
                raise Failure("NOPERM this token does not open database 0; AUTH with the namespace as the user's name")
            await self._enter("", grant)

    @property
    def members(self) -> Members:
        """The consumers of the groups of its log."""
        return members_of(self.opened)

    @property
    def log(self) -> Log:
        """The log of the client."""
        assert self.opened is not None, "taken before a command about keys"
        log: Log = self.opened
        return log

    def topic(self, key: bytes) -> Topic:
        """The topic that a key names. Raises Failure where no topic can have that name."""
        topic = self._topics.get(key)
        if topic is None:
            try:
                name = key.decode()
            except UnicodeDecodeError:
                raise Failure("ERR a key is the name of a topic, 1 to 255 bytes of UTF-8") from None
            topic = self._topics[key] = self.log.topic(name)
            if len(self._topics) > 1024:
                self._topics = {key: topic}
        return topic

    async def has(self, key: bytes) -> bool:
        """True if the topic of a key exists."""
        try:
            return await self.log.has_topic(key.decode())
        except (UnicodeDecodeError, BadOption):
            return False  # no topic can have that name

    def leave(self) -> None:
        """Give the log back."""
        if self.namespace is not None:
            members = self.members
            members.clients -= 1
            if not members.clients:
                self.shared.closing.add(begin_task(members.rest()), None)
            self.shared.logs.leave(self.namespace)
        self.namespace, self.opened, self._topics = None, None, {}
