"""The recorder of examples/eventsourcing_recorder.py passes the tests that the library has for recorders."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

from tests.forked import ROOT

pytest.importorskip("eventsourcing", reason="eventsourcing is not installed (walsvc[dev])")
sys.path.insert(0, str(ROOT / "examples"))

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent, Tracking
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
    ProcessRecorderTestCase,
    TrackingRecorderTestCase,
)
from eventsourcing_recorder import LogAggregateRecorder, LogRecorder


class OnALog:
    """Gives each test a recorder on a log of its own."""

    kind = LogRecorder

    def create_recorder(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        recorder = self.kind(directory.name)
        self.addCleanup(recorder.close)
        return recorder


class TestAggregateRecorder(OnALog, AggregateRecorderTestCase):
    kind = LogAggregateRecorder


class TestApplicationRecorder(OnALog, ApplicationRecorderTestCase):
    def test_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestProcessRecorder(OnALog, ProcessRecorderTestCase):
    pass


class TestTrackingRecorder(OnALog, TrackingRecorderTestCase):
    pass


class TestNonInterleaving(OnALog, NonInterleavingNotificationIDsBaseCase):
    pass


del AggregateRecorderTestCase, ApplicationRecorderTestCase, NonInterleavingNotificationIDsBaseCase
del ProcessRecorderTestCase, TrackingRecorderTestCase


def test_events_and_positions_are_there_after_a_restart(tmp_path: Path) -> None:
    originators = [uuid4(), "text", str(uuid4())]
    written = [StoredEvent(each, number, "topic", b"%d" % number) for each in originators for number in (1, 2)]
    recorder = LogRecorder(tmp_path)
    assert recorder.insert_events(written, tracking=Tracking("other", 5)) == [1, 2, 3, 4, 5, 6]
    recorder.close()
    recorder = LogRecorder(tmp_path)
    assert [each for originator in originators for each in recorder.select_events(originator)] == written
    assert recorder.max_tracking_id("other") == 5
    assert recorder.insert_events([StoredEvent("text", 3, "topic", b"")]) == [8]  # the position is a record as well
    assert [each.id for each in recorder.select_notifications(5, 10)] == [5, 6, 8]
    recorder.close()


class Dog(Aggregate):
    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name, self.tricks = name, []

    @event("TrickAdded")
    def add(self, trick: str) -> None:
        self.tricks.append(trick)


def test_an_application_runs_on_it_with_snapshots(tmp_path: Path) -> None:
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing_recorder",
        "WALSVC_TARGET": str(tmp_path),
        "IS_SNAPSHOTTING_ENABLED": "y",
    }
    dog = Dog("Fido")
    for trick in ("roll over", "fetch"):
        dog.add(trick)
    application = Application(env=environment)
    application.save(dog)
    application.take_snapshot(dog.id)
    dog.add("play dead")
    application.save(dog)
    application.close()
    with Application(env=environment) as application:
        assert application.repository.get(dog.id).tricks == ["roll over", "fetch", "play dead"]
        assert len(list(application.snapshots.get(dog.id))) == 1
    assert sorted(os.listdir(tmp_path)) == ["events", "snapshots"]
