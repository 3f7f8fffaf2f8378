"""A log for programs without an event loop: scripts, Celery tasks, threads of a WSGI server.

    with walsvc.blocking.open("data/") as log:
        print(log.append(b"payload").lsn)

The log lives on an event loop of its own, in a thread. Any number of threads may use it at once, and their appends share syncs. What is
not here is reached by `run`: `log.run(lambda log: log.topic("orders").append(b"..."))`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from walsvc.disk.paths import hint_for
from walsvc.disk.pool import no_thread, start_thread
from walsvc.errors import Closed, PathError, WrongLoop, closed_log
from walsvc.keywords import AppendOptions, BatchOptions, check_keywords, spelled_out
from walsvc.model import AppendResult, Entry, Mode, Record, Strict
from walsvc.opening import open as opening

if TYPE_CHECKING:
    from walsvc.config import WalConfig
    from walsvc.interface import Appending
    from walsvc.interface import Log as AnyLog
    from walsvc.keywords import Payload
    from walsvc.log.read.filter import Wanted
    from walsvc.open_keywords import ClientOptions, LogOptions, StreamOptions
    from walsvc.scope import Opening

T = TypeVar("T")
Target = str | bytes | os.PathLike[Any]


@overload
def open(
    target: Target, *, read_only: bool = False, config: WalConfig | None = None, **overrides: Unpack[LogOptions]
) -> Log: ...
@overload
def open(target: str, **overrides: Unpack[ClientOptions]) -> Log: ...
@overload
def open(target: str, *, config: WalConfig | None = None, **overrides: Unpack[StreamOptions]) -> Log: ...
def open(target: Target, *, config: WalConfig | None = None, **overrides: Any) -> Log:
    """Open a log and wait for it; arguments and errors are those of walsvc.open.

    Several processes (a prefork server's workers) cannot open one directory for writing: give them the URL of a `walsvc serve`,
    and open it after the fork.

    Raises:
        WrongLoop: an event loop runs in this thread, and would stand still: it takes walsvc.open.
    """
    return Log(opening(target, config=config, **overrides))


class Log:
    """An open log, for any thread. `close` it, or use it with `with`; at the end of the process it is closed as well."""

    def __init__(self, opened: Opening[AnyLog]) -> None:
        refuse_loop()
        self._process = os.getpid()
        try:
            self._loop = asyncio.new_event_loop()
        except OSError as error:
            text = f"no event loop can be made: {error.strerror}"
            raise PathError(text, errno=error.errno, hint=hint_for(error.errno or 0)) from error
        try:
            self._thread = start_thread(self._live, "walsvc.blocking")
        except OSError as error:
            self._loop.close()
            raise no_thread(str(error.strerror)) from error
        self._closing = threading.Lock()
        self._calling = threading.Lock()  # every call is in the loop's hands before its end, or refused
        self._ended = False
        try:
            self._log: AnyLog = self._wait(lambda: opened)
        except BaseException:
            self._end()
            raise
        atexit.register(self.close)

    # ---- what scripts do

    @spelled_out(AppendOptions)
    def append(
        self,
        payload: Payload,
        mode: Mode = Strict,
        type: int = 0,
        attributes: Mapping[str, Any] | None = None,
        *,
        topic: str | None = None,
        **options: Unpack[AppendOptions],
    ) -> AppendResult:
        """Append one record, to a topic where one is named, and wait for its answer; see walsvc.Log.append."""
        check_keywords(Log.append, options, AppendOptions)
        return self.run(lambda log: place(log, topic).append(payload, mode, type, attributes, **options))

    @spelled_out(BatchOptions)
    def append_batch(
        self,
        payloads: Iterable[Payload | Entry],
        mode: Mode = Strict,
        *,
        topic: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> Sequence[AppendResult]:
        """Append several records, all or none; see walsvc.Log.append_batch."""
        check_keywords(Log.append_batch, options, BatchOptions)
        return self.run(lambda log: place(log, topic).append_batch(payloads, mode, **options))

    def flush(self) -> int:
        """Wait until everything appended so far is durable; returns durable_lsn."""
        return self.run(lambda log: log.flush())

    def get(self, lsn: int) -> Record | None:
        """The record with this LSN; see walsvc.Log.get."""
        return self.run(lambda log: log.get(lsn))

    def read(self, start: int | None = None, stop: int | None = None, **wanted: Unpack[Wanted]) -> Iterator[Record]:
        """Iterate over records; see walsvc.Log.read for the arguments."""

        async def begun(log: AnyLog) -> Any:
            return log.read_batches(start, stop, **wanted)

        async def next_of(batches: Any) -> list[Record] | None:
            return await anext(batches, None)

        batches = self.run(begun)
        try:
            while (records := self.run(lambda _: next_of(batches))) is not None:
                yield from records
        finally:
            with suppress(Closed):
                self.run(lambda _: batches.aclose())

    def delete_topic(self, name: str) -> None:
        """Hide a topic's records, and free its name and its consumers; see walsvc.Log.delete_topic."""
        self.run(lambda log: log.delete_topic(name))

    def run(self, call: Callable[[AnyLog], Awaitable[T]]) -> T:
        """Call `call(log)` in the loop of the log, wait for what it returns, and return that: everything that walsvc.Log can do.

        Raises:
            What the call raises. WrongLoop: this thread has a running event loop, or the process was forked since. Closed.
        """
        return self._wait(lambda: call(self._log))

    def close(self) -> None:
        """Make everything durable and release the log. Idempotent; a forked child leaves it to its parent."""
        atexit.unregister(self.close)
        if os.getpid() != self._process:
            return
        with self._closing:
            if self._ended:
                return
            try:
                self._wait(self._log.close)
            finally:
                self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- the loop in its thread

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    def _end(self) -> None:
        with self._calling:
            self._ended = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _wait(self, call: Callable[[], Awaitable[T]]) -> T:
        refuse_loop()
        if os.getpid() != self._process:
            raise WrongLoop(
                f"the log was opened by process {self._process}, before a fork",
                hint="open it in each worker: the URL of a `walsvc serve`, as a directory has one writer",
            )

        task: asyncio.Task[Any] | None = None
        given_up = False

        async def whole() -> T:
            nonlocal task
            if given_up:
                raise asyncio.CancelledError
            task = asyncio.current_task()
            return await call()

        def give_up() -> None:
            nonlocal given_up
            given_up = True
            if task is not None:
                task.cancel()

        try:
            with self._calling:
                if self._ended:
                    raise closed_log(self._log.path)
                answer = asyncio.run_coroutine_threadsafe(whole(), self._loop)
            return answer.result()
        except CancelledError:  # by the end of the loop
            raise closed_log(self._log.path) from None
        except BaseException:
            # maybe a signal handler's, at any line: the caller is gone, and must not be given what the call would take
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(give_up)
            raise


def place(log: AnyLog, topic: str | None) -> Appending:
    """The log, or a topic of it."""
    return log if topic is None else log.topic(topic)


def refuse_loop() -> None:
    """WrongLoop where waiting would stop an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WrongLoop(
        "an event loop runs in this thread, and walsvc.blocking would hold it up",
        hint="await walsvc.open(...) here, or call it in a thread: asyncio.to_thread",
    )
