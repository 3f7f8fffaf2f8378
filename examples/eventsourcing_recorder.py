"""A recorder for the library eventsourcing (https://eventsourcing.readthedocs.io): its events are records of a walsvc log.

    class School(Application): ...
    School(env={"PERSISTENCE_MODULE": "eventsourcing_recorder", "WALSVC_TARGET": "data/"})

An event's notification ID is its LSN: dense, from 1, in the order in which events became durable. What an application saves at once
is one atomic batch, and threads that save at once share a sync. The target is a directory for one process, or the URL of a
`walsvc serve`. The index by aggregate is kept in memory, and read from the log at the start. Passes the library's own recorder tests.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)

import walsvc

EVENT, POSITION = 0, 1  # types of records; a POSITION says how far a process application is with another one's events


class LogRecorder(ProcessRecorder):
    """Records events, and how far others' events were processed, in one log. Any thread may call it."""

    def __init__(self, target: Any, **options: Any) -> None:
        self.log = walsvc.blocking.open(target, **options)
        self._lock = threading.Lock()
        self._versions: dict[Any, dict[int, int]] = defaultdict(dict)  # LSN by originator and version; 0: under way
        self._tracked: dict[str, int] = {}
        self._last: int | None = None
        self._listeners: set[threading.Event] = set()
        for record in self.log.read():
            self._note(record.lsn, record.type, record.attributes)

    def close(self) -> None:
        self.log.close()

    # ---- inserting

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, tracking: Tracking | None = None, **_: Any
    ) -> Sequence[int] | None:
        entries = [walsvc.Entry(event.state, EVENT, labels_of(event)) for event in stored_events]
        if tracking is not None:
            name, number = tracking.application_name, tracking.notification_id
            entries.append(walsvc.Entry(b"", POSITION, {"application": name, "position": number}))
        with self._claimed([(event.originator_id, event.originator_version) for event in stored_events], tracking):
            results = self.log.append_batch(entries)
        with self._lock:
            for result, entry in zip(results, entries, strict=True):
                self._note(result.lsn, entry.type, entry.attributes)
        for listener in list(self._listeners):
            listener.set()
        return [result.lsn for result in results[: len(stored_events)]]

    @contextmanager
    def _claimed(self, keys: list[tuple[Any, int]], tracking: Tracking | None) -> Iterator[None]:
        """Take the versions before they are written: of two threads with one version, the second gets IntegrityError."""
        with self._lock:
            if len({*keys}) < len(keys) or any(version in self._versions[originator] for originator, version in keys):
                raise IntegrityError("an event of this originator and version is recorded")
            if tracking is not None:
                before = self._tracked.get(tracking.application_name, 0)
                if tracking.notification_id <= before:
                    raise IntegrityError(f"{tracking.application_name} was processed up to {before}")
                self._tracked[tracking.application_name] = tracking.notification_id
            for originator, version in keys:
                self._versions[originator][version] = 0
        try:
            yield
        except walsvc.WalError:
            with self._lock:
                for originator, version in keys:
                    del self._versions[originator][version]
                if tracking is not None:
                    self._tracked[tracking.application_name] = before
            raise

    def _note(self, lsn: int, kind: int, labels: Any) -> None:
        if kind == EVENT:
            self._versions[originator_of(labels)][labels["version"]] = lsn
            self._last = max(self._last or 0, lsn)
        else:
            name = labels["application"]
            self._tracked[name] = max(self._tracked.get(name, 0), labels["position"])

    def insert_tracking(self, tracking: Tracking) -> None:
        self.insert_events([], tracking=tracking)

    def max_tracking_id(self, application_name: str) -> int | None:
        with self._lock:
            return self._tracked.get(application_name)

    # ---- selecting

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        with self._lock:
            rows = sorted(self._versions.get(originator_id, {}).items(), reverse=desc)
        lsns = [
            lsn for version, lsn in rows if lsn and (gt is None or version > gt) and (lte is None or version <= lte)
        ]
        records = self.log.run(lambda log: asyncio.gather(*(log.get(lsn) for lsn in lsns[:limit])))
        return [StoredEvent(*fields_of(record)) for record in records if record is not None]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        first = max((start or 0) + (not inclusive_of_start), 1)
        last = min(stop or 1 << 62, self.max_notification_id() or 0)
        found: list[Notification] = []
        if first > last:
            return found
        for record in self.log.read(first, last + 1, types={EVENT}, where={"topic": list(topics)} if topics else None):
            found.append(Notification(*fields_of(record), record.lsn))
            if len(found) == limit:
                break
        return found

    def max_notification_id(self) -> int | None:
        with self._lock:
            return self._last

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        return LogSubscription(self, gt, topics)

    def listen(self, listener: threading.Event) -> None:
        self._listeners.add(listener)

    def unlisten(self, listener: threading.Event) -> None:
        self._listeners.discard(listener)


class LogSubscription(ListenNotifySubscription[LogRecorder]):
    """Notifications as they are recorded."""

    def __init__(self, recorder: LogRecorder, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder, gt, topics)
        recorder.listen(self._has_been_notified)

    def stop(self) -> None:
        super().stop()
        self._recorder.unlisten(self._has_been_notified)


class LogAggregateRecorder(LogRecorder):
    """For snapshots: the library expects no notification IDs of it."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> None:
        super().insert_events(stored_events)


def labels_of(event: StoredEvent) -> dict[str, Any]:
    """An event without its state. A UUID is kept as bytes, so that text that looks like one stays text."""
    originator = event.originator_id
    return {
        "originator": originator.bytes if isinstance(originator, UUID) else originator,
        "version": event.originator_version,
        "topic": event.topic,
    }


def originator_of(labels: Any) -> UUID | str:
    value = labels["originator"]
    return UUID(bytes=value) if isinstance(value, bytes) else value


def fields_of(record: walsvc.Record) -> tuple[Any, int, str, bytes]:
    labels = record.attributes
    return originator_of(labels), labels["version"], labels["topic"], record.payload


class Factory(InfrastructureFactory[LogRecorder]):
    """Recorders of an application, by its environment: WALSVC_TARGET, one log for each purpose below it."""

    def _open(self, kind: type[LogRecorder], purpose: str) -> LogRecorder:
        target = self.env.get("WALSVC_TARGET")
        if not target:
            raise OSError("WALSVC_TARGET is not set: a directory, or the URL of a `walsvc serve`")
        recorder = kind(target, namespace=purpose)
        self._opened = [*getattr(self, "_opened", ()), recorder]
        return recorder

    def close(self) -> None:
        for recorder in getattr(self, "_opened", ()):
            recorder.close()

    def aggregate_recorder(self, purpose: str = "snapshots") -> AggregateRecorder:
        return self._open(LogAggregateRecorder, purpose)

    def application_recorder(self) -> ApplicationRecorder:
        return self._open(LogRecorder, "events")

    def process_recorder(self) -> ProcessRecorder:
        return self._open(LogRecorder, "events")

    def tracking_recorder(self, tracking_recorder_class: type[LogRecorder] | None = None) -> TrackingRecorder:
        return self._open(tracking_recorder_class or LogRecorder, "tracking")
