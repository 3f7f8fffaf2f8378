"""Reading backwards over a connection: a page at a time, each asked for when the one before was taken."""

from __future__ import annotations

from typing import Any

from walsvc.errors import ProtocolError
from walsvc.model import Record
from walsvc.service.client.session import Session
from walsvc.service.client.streams import Hides
from walsvc.service.wire.columns import records_of
from walsvc.service.wire.frames import Records


class Pages:
    """The receiving half of "read_back". Nothing is kept by the server between two pages, so a lost connection costs nothing.

    Attributes:
        hidden: what was purged or cut since a page was taken, as tests of a record.
    """

    def __init__(self, session: Session, args: dict[str, Any]) -> None:
        self._session = session
        self._args = args
        self._ended = False
        self.hidden: list[Hides] = []

    async def take(self) -> list[Record]:
        """The next records, newest first; empty at the end."""
        while not self._ended:
            self._session.need("reverse", "reading backwards")
            hidden: list[Hides] = []
            self.hidden = hidden  # what comes while this page is on its way
            size = self._session.config.read_ahead_bytes
            answer = await self._session.call("read_back", max_bytes=size, **self._args)
            try:
                rows = answer["records"]
                records = records_of(Records._make([0, 0, *rows, []])) if rows else []
                following = {"stop": answer["stop"], "cuts": answer["cuts"]}
                ended = answer["ended"]
            except (KeyError, TypeError, ValueError) as error:
                raise ProtocolError(f"the answer to read_back is none: {error}") from None
            self._args = {**self._args, **following}
            self._ended = bool(ended)
            if standing := [each for each in records if not any(hides(each) for hides in hidden)]:
                return standing
        return []

    def cut(self, end: int) -> None:
        """The log was cut before LSN `end`: what was received from there on is void."""
        self.hidden.append(lambda record: record.lsn >= end)

    def purged(self, hidden: Hides) -> None:
        """Some of what was received is hidden now."""
        self.hidden.append(hidden)

    def close(self) -> None:
        """Give it up."""
        self._ended = True
