"""OpenTelemetry spans: one for each append, with what became of it, and one for each commit."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import walsvc
from walsvc.service.server import serve
from walsvc.tracing import traced


@pytest.fixture
def provider():
    made = TracerProvider()
    made.spans = InMemorySpanExporter()  # type: ignore[attr-defined]
    made.add_span_processor(SimpleSpanProcessor(made.spans))  # type: ignore[attr-defined]
    yield made
    made.shutdown()


def finished(provider, name):
    return [each for each in provider.spans.get_finished_spans() if each.name == name]


async def test_appends_stand_below_the_caller_and_commits_by_themselves(tmp_path, provider):
    tracer = provider.get_tracer("test")
    async with traced(await walsvc.open(tmp_path / "log"), provider) as log:
        with tracer.start_as_current_span("request") as caller:
            result = await log.topic("orders").append(b"12345", attributes={"key": 1})
            await log.append_batch([b"a", b"b", b"c"])
            await log.append_nowait(b"x")
        assert log.next_lsn == 6
        assert [record.lsn async for record in log.read()] == [1, 2, 3, 4, 5]
    first, other = finished(provider, "walsvc append")
    [batch] = finished(provider, "walsvc append_batch")
    path = str(tmp_path / "log")
    assert dict(first.attributes) == {
        "walsvc.path": path,
        "walsvc.topic": "orders",
        "walsvc.bytes": 5,
        "walsvc.lsn": 1,
        "walsvc.durable": True,
        "walsvc.sync_us": result.sync_us,
    }
    assert (batch.attributes["walsvc.lsn"], other.attributes["walsvc.lsn"]) == (4, 5)
    assert {each.parent.span_id for each in (first, other, batch)} == {caller.get_span_context().span_id}
    commits = finished(provider, "walsvc commit")
    assert sum(each.attributes["walsvc.records"] for each in commits) == 5
    assert {each.attributes["walsvc.first_lsn"] for each in commits} >= {1, 2, 5}
    for each in commits:
        assert each.parent is None
        assert each.end_time >= each.start_time


async def test_errors_are_recorded_at_once_and_later(tmp_path, provider):
    async with traced(await walsvc.open(tmp_path / "log"), provider) as log:
        with pytest.raises(walsvc.BadPayload):
            await log.append("text")
        with pytest.raises(walsvc.Conflict):
            await log.append(b"x", expected=7)
    for span, kind in zip(finished(provider, "walsvc append"), ("BadPayload", "Conflict"), strict=True):
        assert span.status.status_code is trace.StatusCode.ERROR
        assert span.events[0].attributes["exception.type"].endswith(kind)


async def test_served_log_has_spans_of_its_appends(tmp_path, provider):
    async with (
        serve(tmp_path / "log", unix=tmp_path / "s"),
        traced(await walsvc.open(f"unix://{tmp_path / 's'}"), provider) as log,
    ):
        await log.append(b"x")
    [span] = finished(provider, "walsvc append")
    assert span.attributes["walsvc.lsn"] == 1
    assert finished(provider, "walsvc commit") == []
