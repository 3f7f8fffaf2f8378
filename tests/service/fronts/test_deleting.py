"""DELETE at /v1: topics and records go, or the answer says why not and nothing has changed. And what errors say to a client that writes no Python."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

import walsvc
from tests.service.fronts.conftest import told
from tests.service.fronts.fuzz import state_of
from walsvc.service.fronts.http import leasing
from walsvc.service.server.limits import Limits


async def filled(session: Any) -> Any:
    """The log of a session, with records 1 to 6: of t those with odd LSNs, of u the others."""
    log = session.server.logs[""]
    for number in range(6):
        await log.topic("tu"[number % 2]).append(b"%d" % (number + 1), attributes={"half": number // 3})
    return log


async def lsns(log: Any) -> list[int]:
    return [record.lsn async for record in log.read()]


async def test_topic_goes_whole_and_others_stay(fronted):
    async with fronted() as session:
        log = await filled(session)
        assert (await session.delete("/v1/topics/t")).status == 204
        assert (log.topics(), await lsns(log)) == (["u"], [2, 4, 6])
        status, problem = await told(await session.delete("/v1/topics/t"))
        assert (status, problem["detail"]) == (404, "there is no topic 't'")
        both = await asyncio.gather(*(session.delete("/v1/topics/u") for _ in range(2)))
        assert sorted(answer.status for answer in both) == [204, 404]
        assert (await session.post("/v1/topics/t", data=b"x")).status == 201
        assert await lsns(log) == [7]


async def test_topic_stays_while_a_consumer_of_it_is_open(fronted):
    async with fronted() as session:
        log = await filled(session)
        consumer = await log.topic("t").consumer("mail")
        before = state_of(log)
        status, problem = await told(await session.delete("/v1/topics/t"))
        assert (status, problem["detail"]) == (409, "consumer 'mail' of topic 't' is open")
        assert state_of(log) == before
        await consumer.close()
        assert (await session.delete("/v1/topics/t")).status == 204


async def test_queue_of_the_front_keeps_its_topic_while_a_delivery_is_out(fronted):
    async with fronted() as session:
        log = await filled(session)
        queue = "/v1/topics/t/consumers/q"
        _, given = await told(await session.post(f"{queue}/lease", json={"lease": 60}))
        assert (await session.delete("/v1/topics/t")).status == 409
        token = given["deliveries"][0]["delivery"]
        assert (await session.post(f"{queue}/ack", json={"deliveries": [token]})).status == 204
        assert (await session.delete("/v1/topics/t")).status == 204, "nobody uses the queue any more"
        assert not session.side._front._queues._queues
        assert log.topics() == ["u"]


@pytest.mark.parametrize("where", ["/v1/topics/t", "/v1/records"])
async def test_single_records_go(fronted, where):
    async with fronted() as session:
        log = await filled(session)
        for headers, status in (({"If-Match": '"5"'}, 412), ({"If-None-Match": "*"}, 400), ({"If-Match": '"3"'}, 204)):
            assert (await session.delete(f"{where}/3", headers=headers)).status == status, headers
        assert await lsns(log) == [1, 2, 4, 5, 6]
        for lsn in (3, 0, 7, 9_999_999_999_999_999_999):
            assert (await session.delete(f"{where}/{lsn}")).status == 404, lsn
        assert (await session.delete(f"{where}/2")).status == (404 if "t/" in f"{where}/" else 204)
        await log.truncate_before(2)
        status, problem = await told(await session.delete(f"{where}/1"))
        assert (status, problem["type"]) == (410, "urn:walsvc:Truncated")


@pytest.mark.parametrize(
    ("path", "answer", "left"),
    [
        ("topics/t?lsn=1&lsn=2&lsn=5", {"purged": 2}, [2, 3, 4, 6]),
        ("records?lsn=1&lsn=2", {"purged": 2}, [3, 4, 5, 6]),
        ("topics/t?keep=1", {"purged": 2}, [2, 4, 5, 6]),
        ("topics/t?keep=0", {"purged": 3}, [2, 4, 6]),
        ("topics/none?keep=0", {"purged": 0}, [1, 2, 3, 4, 5, 6]),
        ("topics/t?label.half=0", None, [2, 4, 5, 6]),
        ("records?label.half=0", None, [4, 5, 6]),
        ("records?label.half=0&before=2", None, [2, 3, 4, 5, 6]),
        ('records?label.half="0"', None, [1, 2, 3, 4, 5, 6]),
        ("topics/t?before=5", None, [2, 4, 5, 6]),
        ("topics/t?before=5&force=false", None, [2, 4, 5, 6]),
        ("records?before=5", None, [5, 6]),
        ("records?before=7", None, []),
    ],
)
async def test_records_go_that_the_query_names(fronted, path, answer, left):
    async with fronted() as session:
        log = await filled(session)
        got = await session.delete(f"/v1/{path}")
        assert got.status == (200 if answer else 204)
        if answer:
            assert await got.json() == answer
        assert await lsns(log) == left


async def test_what_is_held_goes_by_force_alone(fronted):
    async with fronted() as session:
        log = await filled(session)
        await log.hold("backup", 2)
        for path in ("topics/t", "records"):
            before = state_of(log)
            status, problem = await told(await session.delete(f"/v1/{path}?before=4"))
            assert (status, "'backup'" in problem["detail"], "force=true" in problem["hint"]) == (409, True, True)
            assert state_of(log) == before
            assert (await session.delete(f"/v1/{path}?before=4&force=true")).status == 204
        assert await lsns(log) == [4, 5, 6]


@pytest.mark.parametrize(
    "path",
    [
        *("topics/t?before=0", "topics/t?before=8", "topics/t?before=x", "topics/t?before=", "topics/t?force=true"),
        *("topics/t?lsn=", "topics/t?lsn=0", "topics/t?lsn=7", "topics/t?lsn=1&keep=1", "topics/t?lsn=1&before=3"),
        *("topics/t?keep=-1", "topics/t?keep=1&before=3", "topics/t?keep=1&label.a=1", "topics/t?label.a=1&label.a=2"),
        *("topics/t?label.a=1&before=3&force=true", "topics/t?before=3&force=yes", "topics/t?lsns=1", "topics/t/1?x=1"),
        *("topics/t?keep=", "topics/t?keep", "topics/t?=", "topics/t?label.a=" + "x" * 1100, "topics/" + "x" * 256),
        *("records", "records?", "records?keep=1"),
    ],
)
async def test_what_is_not_clear_is_refused(fronted, path):
    async with fronted() as session:
        log = await filled(session)
        before = state_of(log)
        status, problem = await told(await session.delete(f"/v1/{path}"))
        assert (status, problem["type"]) == (400, "urn:walsvc:BadOption")
        assert state_of(log) == before


async def test_conditions_that_are_none_of_deleting_are_refused(fronted):
    async with fronted() as session:
        log = await filled(session)
        before = state_of(log)
        for path in ("topics/t", "topics/t?keep=1", "records?before=3"):
            for headers in ({"If-Match": '"5"'}, {"If-None-Match": "*"}):
                assert (await session.delete(f"/v1/{path}", headers=headers)).status == 400
        assert state_of(log) == before


async def test_queue_that_was_overtaken_goes_on_where_its_client_says(fronted):
    async with fronted() as session:
        log = await filled(session)
        queue = "/v1/topics/t/consumers/q"
        assert (await session.post(f"{queue}/lease", json={"lease": 60})).status == 200
        assert (await session.delete("/v1/records?before=4")).status == 204
        status, problem = await told(await session.post(f"{queue}/lease", json={}))
        assert (status, "/seek" in problem["hint"]) == (410, True)
        for body in ({}, {"to": "soon"}, {"to": 99}, {"to": None}):
            assert (await session.post(f"{queue}/seek", json=body)).status == 400, body
        assert (await session.post(f"{queue}/seek", json={"to": "first"})).status == 204
        _, given = await told(await session.post(f"{queue}/lease", json={}))
        assert [each["record"]["lsn"] for each in given["deliveries"]] == [5]
        assert await lsns(log) == [4, 5, 6]


DEEP = "[" * 5000
PYTHON = re.compile(
    r"expected=|dedupe=|types=|lsns=|mode=[A-Z]|\w\(|None|True|KeyRing|first_lsn|next_lsn|with a larger"
)
NDJSON = {"Content-Type": "application/x-ndjson"}
REFUSED: list[tuple[int, str, str, dict[str, str], Any]] = [
    (412, "POST", "topics/t", {"If-Match": '"1"'}, b"x"),
    (412, "POST", "records", {"If-Match": '"1"', **NDJSON}, b"1\n"),
    (400, "POST", "topics/t", {"If-Match": '"9999999999999999999"'}, b"x"),
    (400, "POST", "topics/t", {"Idempotency-Key": ""}, b"x"),
    (400, "POST", "topics/t", {"Idempotency-Key": "k" * 1025}, b"x"),
    (400, "POST", "topics/t?dedupe_header=X", {"X": "k" * 1025}, b"x"),
    (400, "POST", "topics/t?mode=quorum", {}, b"x"),
    (400, "POST", "topics/t?mode=quorum", NDJSON, b"1\n"),
    (400, "POST", "topics/t?type=65536", {}, b"x"),
    (400, "POST", "topics/t", {"Walsvc-Labels": DEEP}, b"x"),
    (400, "POST", "topics/t", {"Walsvc-Labels": '{"a": NaN}'}, b"x"),
    (400, "POST", "topics/t", {"Walsvc-Labels": '{"a": "\\ud800"}'}, b"x"),
    (400, "POST", "topics/t", {"Walsvc-Labels": f'{{"a": {1 << 70}}}'}, b"x"),
    (400, "POST", "topics/t", NDJSON, DEEP.encode()),
    (400, "POST", "topics/t", NDJSON, b"Infinity"),
    (400, "POST", "topics/t", NDJSON, b"\xff"),
    (400, "POST", "topics/t/consumers/q/lease", {}, DEEP.encode()),
    (400, "POST", "topics/t/consumers/q/lease", {}, b'{"lease": null}'),
    (400, "POST", "topics/t/consumers/q/lease", {}, b'{"start": 99}'),
    (409, "POST", "topics/t/consumers/q/ack", {}, b'{"deliveries": ["1-1-x"]}'),
    (409, "POST", "topics/t/consumers/open/lease", {}, b"{}"),
    (413, "POST", "topics/t", {}, b"x" * 5000),
    (413, "POST", "topics/t", NDJSON, b'"%s"' % bytes(5000).hex().encode()),
    (400, "POST", "topics/t", NDJSON, b"1" * 5000),
    (413, "POST", "topics/t", {}, b"x" * 200_000),
    (400, "GET", "topics/t?type=65536", {}, None),
    (410, "GET", "topics/t?start=1", {}, None),
    (410, "GET", "records/1", {}, None),
    (404, "GET", "records/0", {}, None),
    (404, "DELETE", "topics/none", {}, None),
    (405, "PUT", "topics/t", {}, b"x"),
    (409, "DELETE", "topics/t", {}, None),
    (409, "DELETE", "records?before=4", {}, None),
    (412, "DELETE", "topics/t/2", {"If-Match": '"3"'}, None),
    (412, "DELETE", "topics/t/2", {"If-Match": "W/2"}, None),
    (415, "POST", "topics/t", {"Content-Encoding": "br"}, b"x"),
    (400, "POST", "topics/t/consumers/q/seek", {}, b"{}"),
]
KINDS = {
    400: {"BadOption"},
    409: {"InUse", "LeaseLost"},
    410: {"Truncated"},
    412: {"Conflict"},
    413: {"RecordTooLarge"},
}


@pytest.mark.parametrize("refused", REFUSED)
async def test_errors_speak_of_requests_and_not_of_python(fronted, refused):
    status, method, path, headers, body = refused
    config = walsvc.WalConfig(max_record_bytes=4096)
    async with fronted(config=config, limits=Limits(frame_bytes=128 * 1024)) as session:
        log = await filled(session)
        await log.truncate_before(2)
        await log.topic("t").consumer("open")
        await log.hold("backup", 2)
        before = state_of(log)
        got, problem = await told(await session.request(method, f"/v1/{path}", headers=headers, data=body))
        assert got == status, problem
        kind, title = problem["type"].removeprefix("urn:walsvc:"), problem.get("title")
        assert (title or kind, kind) == (kind, kind)
        assert kind in KINDS.get(status, {"about:blank"}), problem
        assert PYTHON.search(" ".join((problem["detail"], problem.get("hint", "")))) is None, problem
        assert state_of(log)[:2] == before[:2]
        if status == 412:
            assert f'If-Match: "{problem["actual"]}"' in problem["hint"]


async def test_labels_in_a_path_are_json_or_text(fronted):
    async with fronted() as session:
        for text in ("NaN", "1e400", "-Infinity", "null", "[1]", DEEP[:2000]):
            assert (await session.post("/v1/topics/t", params={"label.a": text}, data=b"x")).status == 201
        found = [dict(record.attributes)["a"] async for record in session.server.logs[""].read()]
        assert found == ["NaN", "1e400", "-Infinity", "null", "[1]", DEEP[:2000]]
        page = await (await session.get("/v1/topics/t")).text()
        assert json.loads(page.splitlines()[0])["attributes"] == {"a": "NaN"}
        assert leasing.object_of(b'\xef\xbb\xbf{"wait": 1}', leasing.LEASE_FIELDS) == {"wait": 1}
