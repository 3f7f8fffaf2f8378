"""A log opened with read_only=True: reads beside a live writer in another process, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

from walsvc.config import WalConfig, check_timeout
from walsvc.errors import Closed
from walsvc.log.read.pins import PINS_SHOWN, limited_topics, pins_of
from walsvc.log.read.reading import Reading
from walsvc.model import RecoveryReport, Stats
from walsvc.scope import Dropped, Opened

if TYPE_CHECKING:
    from walsvc.log.recover.watched import WatchedSegments


def refuse(log: ReadOnlyLog, *_: Any, **__: Any) -> NoReturn:
    """Raise Closed; stands for each method that would write."""
    raise Closed("the log was opened with read_only=True", path=log.path, hint="open it without read_only")


async def refuse_later(log: ReadOnlyLog, *_: Any, **__: Any) -> NoReturn:
    """Raise Closed; stands for each coroutine method that would write."""
    refuse(log)


Refusing = Callable[..., NoReturn]
RefusingLater = Callable[..., Coroutine[Any, Any, NoReturn]]


class ReadOnlyLog(Reading, Opened):
    """The reading half of a log's interface; everything that would write raises Closed.

    Attributes:
        config: the options that it was opened with.
        report: what opening found.
        segments: the log's files as they were seen last, for the modules of walsvc that read them.
    """

    def __init__(self, segments: WatchedSegments, config: WalConfig, dropped: Dropped = Dropped.SILENT) -> None:
        super().__init__(segments)
        self.segments = segments
        self.config = config
        self.report: RecoveryReport = segments.report
        self._opens(dropped)

    def stats(self) -> Stats:
        """A frozen picture: range and backend; the counters of a reader are zero."""
        segments = self.segments
        disk, tail = segments.disk, segments.tail
        return Stats(
            disk=disk.kind,
            disk_reason=disk.reason,
            direct=disk.direct,
            block_bytes=disk.block_bytes,
            sync_method=disk.sync_method,
            reading=disk.reading,
            first_lsn=self.first_lsn,
            next_lsn=self.next_lsn,
            durable_lsn=self.durable_lsn,
            segments=len(segments.ids()),
            spares=segments.spares,
            segment_id=tail.header.first_lsn,
            topics=len(segments.metadata.topics),
            pins=pins_of(segments.metadata, self.next_lsn, segments.sizes, PINS_SHOWN),
            limited_topics=limited_topics(segments.metadata),
            layout="pack" if tail.chain.align < tail.header.block_bytes else "pad",
            double_write=self.config.double_write,
            key_id=tail.header.key_id.decode() or None,
        )

    async def refresh(self) -> int:
        """Look for what the writer has added, and dropped; returns next_lsn."""
        return await self.segments.refresh()

    append: Refusing = refuse
    append_nowait: Refusing = refuse
    append_batch: Refusing = refuse
    transaction: Refusing = refuse
    flush: RefusingLater = refuse_later
    wait_durable: RefusingLater = refuse_later
    truncate_before: RefusingLater = refuse_later
    truncate_after: RefusingLater = refuse_later
    use_keys: RefusingLater = refuse_later
    seal: RefusingLater = refuse_later

    @property
    def writer(self) -> NoReturn:
        """A read-only log has none: raises Closed."""
        refuse(self)

    def _is_open(self) -> bool:
        return not self.segments.released

    async def close(self, timeout: float | None = None) -> None:
        """Release the directory. Idempotent; `timeout` is accepted for the interface's sake."""
        check_timeout(timeout)
        await self.segments.close()
