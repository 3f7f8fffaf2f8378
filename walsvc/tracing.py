"""OpenTelemetry spans for appends and commits.

    from walsvc.tracing import traced

    async with walsvc.open("data/") as plain:
        log = traced(plain)
        await log.topic("orders").append(b"...")

A log that is not traced knows nothing of this module, and pays nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from walsvc.extras import need

need("opentelemetry", "walsvc.tracing")

from opentelemetry import trace  # noqa: E402  behind the line that says what is missing

from walsvc.api import Log as EmbeddedLog  # noqa: E402
from walsvc.model import AppendResult  # noqa: E402

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from walsvc.interface import Log, Topic

APPEND, BATCH, COMMIT = "walsvc append", "walsvc append_batch", "walsvc commit"


def traced(log: Log, provider: TracerProvider | None = None) -> Log:
    """A log whose appends make spans; everything else is the log's own.

    A span "walsvc append" (or append_batch) lasts from the call to the answer, below the caller's current span, with the attributes
    `walsvc.path`, `walsvc.topic`, `walsvc.bytes`, `walsvc.lsn`, `walsvc.durable` and `walsvc.sync_us`; an error is recorded. Of a log in
    this process each group makes a span "walsvc commit" of its write and sync, with `walsvc.first_lsn`, `walsvc.records`, `walsvc.bytes`; one
    commit serves many appends, so it has no parent.

    Args:
        log: any log.
        provider: of OpenTelemetry; None: the global one.
    """
    tracer = trace.get_tracer("walsvc", tracer_provider=provider)
    if isinstance(log, EmbeddedLog):
        log.writer.core.counters.observer = commits_of(tracer, log.path)
    return TracedLog(log, tracer)


def commits_of(tracer: Tracer, path: str) -> Callable[[int, int, int, float], None]:
    """A function that makes a span of each group that the disk has answered."""

    def answered(first_lsn: int, records: int, size: int, seconds: float) -> None:
        now = time.time_ns()
        attributes: dict[str, str | int] = {
            "walsvc.path": path,
            "walsvc.first_lsn": first_lsn,
            "walsvc.records": records,
            "walsvc.bytes": size,
        }
        begun = now - int(seconds * 1e9)
        span = tracer.start_span(
            COMMIT, context=trace.set_span_in_context(trace.INVALID_SPAN), attributes=attributes, start_time=begun
        )
        span.end(now)

    return answered


class Traced:
    """Appends with spans; everything else is the inner one's."""

    def __init__(self, inner: Any, tracer: Tracer, path: str, topic: str | None) -> None:
        self._inner = inner
        self._tracer = tracer
        self._fixed: dict[str, Any] = {"walsvc.path": path, **({} if topic is None else {"walsvc.topic": topic})}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def append(self, payload: Any, *args: Any, **options: Any) -> Any:
        """See Log.append."""
        return self._spanned(APPEND, self._inner.append, payload, *args, **options)

    def append_nowait(self, payload: Any, *args: Any, **options: Any) -> Any:
        """See Log.append_nowait."""
        return self._spanned(APPEND, self._inner.append_nowait, payload, *args, **options)

    def append_batch(self, payloads: Any, *args: Any, **options: Any) -> Any:
        """See Log.append_batch."""
        return self._spanned(BATCH, self._inner.append_batch, payloads, *args, **options)

    def _spanned(self, name: str, call: Callable[..., Any], payload: Any, *args: Any, **options: Any) -> Any:
        span = self._tracer.start_span(name, attributes=self._fixed)
        if isinstance(payload, (bytes, bytearray, memoryview)):
            span.set_attribute("walsvc.bytes", memoryview(payload).nbytes)
        try:
            future = call(payload, *args, **options)
        except BaseException as error:
            ended(span, error)
            raise
        future.add_done_callback(lambda done: told(span, done))
        return future


class TracedLog(Traced):
    """A log with spans."""

    def __init__(self, log: Log, tracer: Tracer) -> None:
        super().__init__(log, tracer, log.path, None)

    def topic(self, name: str) -> Topic:
        """See Log.topic."""
        return Traced(self._inner.topic(name), self._tracer, self._inner.path, name)

    async def __aenter__(self) -> TracedLog:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *details: Any) -> None:
        await self._inner.__aexit__(*details)


def told(span: Span, done: asyncio.Future[Any]) -> None:
    """End the span of an append that was answered."""
    if done.cancelled():
        ended(span, asyncio.CancelledError("the wait was cancelled; the record may be there"))
        return
    if (error := done.exception()) is not None:
        ended(span, error)
        return
    result = done.result()
    last = result if isinstance(result, AppendResult) else result[-1] if len(result) else None
    if last is not None:
        span.set_attributes({"walsvc.lsn": last.lsn, "walsvc.durable": last.durable, "walsvc.sync_us": last.sync_us})
    span.end()


def ended(span: Span, error: BaseException) -> None:
    """End the span of an append that failed."""
    span.record_exception(error)
    span.set_status(trace.StatusCode.ERROR, str(error))
    span.end()
