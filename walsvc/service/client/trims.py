"""RemoteTrims: the calls by which a client lets a served log drop, hide and rewrite what it has; see walsvc.log.extent.trims."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from walsvc.errors import BadOption
from walsvc.model import Retention
from walsvc.service.client.common import Common
from walsvc.service.client.values import NOTHING_KEPT
from walsvc.topics.names import Start

TOPICS_AT_OPENING = 10_000  # more are asked for by refresh() only


class RemoteTrims(ABC):
    """A served log, as the programs see it that drop, hide and rewrite records. It knows holds and retention as it heard of them last."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._retention = NOTHING_KEPT
        self._holds: dict[str, int] = {}

    @abstractmethod
    async def refresh(self, topics_max: int | None = None) -> int:
        """Ask the server; see RemoteLog.refresh."""

    def _heard(self, retention: Retention, holds: dict[str, int]) -> None:
        self._retention, self._holds = retention, holds

    # ---- retention

    async def hold(self, name: str, lsn: Start) -> None:
        """Keep every record from `lsn` on until `release`; see Log.hold."""
        held: int = await self._common.session.call("hold", name=name, lsn=lsn)
        self._holds[name] = held

    async def release(self, name: str) -> None:
        """Give up a hold, durably; nothing happens where there is none."""
        await self._common.session.call("release", name=name)
        self._holds.pop(name, None)

    def holds(self) -> dict[str, int]:
        """The holders and the lowest LSN that each of them needs, as far as this client has heard of them: `refresh`."""
        return dict(self._holds)

    async def reclaim(self) -> int:
        """Drop the segments that every consumer and every holder has passed; returns how many records. See Log.reclaim."""
        dropped: int = await self._common.session.call("reclaim")
        await self.refresh(TOPICS_AT_OPENING)
        return dropped

    def retention(self) -> Retention:
        """The segments that are kept and the pins that need them, as of the last change of this client, or `refresh`."""
        return self._retention

    # ---- purging

    async def purge(
        self, key_or_labels: Any = None, *, before: int | None = None, lsns: Iterable[int] | None = None
    ) -> int | None:
        """Hide all records below LSN `before` that have a key, or labels, or those with the LSNs in `lsns`; see Log.purge. Other clients'
        readers and consumers do not show what was sent ahead to them either. After a lost connection: OutcomeUnknown; with `lsns` it
        is repeated, and what the first call has hidden is not counted again."""
        return await self._common.purge(None, key_or_labels, before, lsns)

    async def compact(self, on_segment: Callable[[int, int, int], None] | None = None) -> int:
        """Rewrite the server's sealed segments without what was purged; see Log.compact. Nothing tells how far it has come:
        `on_segment` is refused. Not repeated after a lost connection: OutcomeUnknown; what was done by then is done."""
        self._common.session.check(changes=True)
        if on_segment is not None:
            raise BadOption(
                "the server does not tell how far it has come",
                path=self._common.session.address.url,
                hint="leave on_segment out",
            )
        freed: int = await self._common.session.call("compact")
        await self.refresh(TOPICS_AT_OPENING)
        return freed

    # ---- the ends

    async def truncate_before(self, lsn: int, *, force: bool = False) -> None:
        """Drop all records below `lsn`; see Log.truncate_before."""
        await self._common.session.call("truncate_before", lsn=lsn, force=force)
        await self.refresh(TOPICS_AT_OPENING)

    async def truncate_after(self, lsn: int) -> None:
        """Drop all records above `lsn`; see Log.truncate_after. Not repeated after a lost connection: OutcomeUnknown."""
        await self._common.session.call("truncate_after", lsn=lsn)
        await self.refresh(TOPICS_AT_OPENING)
