"""The HTTP front: appending, reading, events, queues; what is refused, and how."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re

import aiohttp
import pytest
import yarl
from multidict import CIMultiDict

import walsvc
from tests.service.fronts.conftest import told
from tests.service.fronts.fuzz import campaign
from tests.waiting import until
from walsvc.service.fronts.http import leasing, openapi, reading, routes
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.server.limits import Limits

NDJSON = {"Content-Type": "application/x-ndjson"}


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


async def test_append_is_answered_when_durable_and_read_back(fronted):
    async with fronted() as session:
        answer = await session.post("/v1/topics/orders", data=b"\x00\xff", headers={"Walsvc-Labels": '{"key": "c1"}'})
        status, document = await told(answer)
        assert (status, document["lsn"], document["durable"], document["duplicate"]) == (201, 1, True, False)
        assert (answer.headers["ETag"], answer.headers["Location"]) == ('"1"', "/v1/topics/orders/1")
        log = session.server.logs[""]
        [record] = [record async for record in log.read()]
        assert (record.payload, record.topic, dict(record.attributes)) == (b"\x00\xff", "orders", {"key": "c1"})
        async with session.get(answer.headers["Location"]) as got:
            assert (got.status, await got.read(), got.headers["Walsvc-Labels"]) == (200, b"\x00\xff", '{"key": "c1"}')
        async with session.get("/v1/topics/orders") as got:
            assert got.content_type == "application/x-ndjson"
            [row] = rows(await got.text())
        assert (row["lsn"], row["payload"], row["attributes"]) == (1, {"base64": "AP8="}, {"key": "c1"})
        async with session.get("/v1/topics") as got:
            assert await got.json() == {"topics": ["orders"]}


async def test_labels_type_and_key_come_from_query_and_headers_as_providers_of_webhooks_send_them(fronted):
    async with fronted() as session:
        url = "/v1/topics/hooks?type=7&label.source=github&label.tries=2&label_header=X-GitHub-Event&label_header=X-Not-There&dedupe_header=X-GitHub-Delivery"
        sent = {"X-GitHub-Event": "push", "X-GitHub-Delivery": "d-1"}
        assert (await session.post(url, data=b"{}", headers=sent)).status == 201
        status, document = await told(await session.post(url, data=b"{ }", headers=sent))
        assert (status, document["lsn"], document["duplicate"]) == (200, 1, True)
        assert (await told(await session.post(url, data=b"{}")))[0] == 400
        [row] = rows(await (await session.get("/v1/topics/hooks")).text())
        assert (row["type"], row["payload"]) == (7, "{}")
        assert row["attributes"] == {"source": "github", "tries": 2, "X-GitHub-Event": "push"}


PROVIDERS = {
    "GitHub": {"Content-Type": "application/json", "User-Agent": "GitHub-Hookshot/a", "X-GitHub-Delivery": "72d3162e"},
    "GitHub as a form": {"Content-Type": "application/x-www-form-urlencoded", "X-GitHub-Delivery": "72d3162f"},
    "Stripe": {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": "t=1,v1=5257a8"},
    "Twilio": {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8", "X-Twilio-Signature": "0/KCT"},
    "CloudEvents": {"Content-Type": "application/cloudevents+json", "ce-id": "1"},
    "nothing said": {},
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("way", ["whole", "chunked", "asked first", "gzip", "empty"])
async def test_providers_of_webhooks_are_taken_as_they_are(fronted, provider, way):
    body = b"" if way == "empty" else b'payload={"id": "evt_1", "text": "\xc3\xa9 \xff"}' * 3000
    headers, data = dict(PROVIDERS[provider]), body
    if way == "gzip":
        headers["Content-Encoding"], data = "gzip", gzip.compress(body)

    async def parts():
        for place in range(0, len(body), 4096):
            yield body[place : place + 4096]

    async with fronted() as session:
        sent = parts() if way == "chunked" else data
        async with session.post(
            "/v1/topics/hook",
            data=sent,
            headers=headers,
            expect100=way == "asked first",
            skip_auto_headers=["Content-Type"],
        ) as answer:
            assert answer.status == 201, await answer.text()
        [record] = [record async for record in session.server.logs[""].read()]
        assert record.payload == body


async def test_packed_body_is_bounded_by_what_it_holds_and_nothing_else_is_unpacked(fronted):
    limits = Limits(frame_bytes=128 * 1024)
    much = gzip.compress(bytes(1 << 25), 1)[:100_000]
    async with fronted(limits=limits) as session:
        for data, packed, status in (
            (gzip.compress(bytes(128 * 1024)), "gzip", 201),
            (gzip.compress(bytes(128 * 1024 + 1)), "gzip", 413),
            (much, "gzip", 413),  # 22 MiB
            (b"no gzip", "gzip", 400),
            (gzip.compress(b"x")[:-1], "gzip", 400),
            (gzip.compress(bytes(range(256)))[:100], "gzip", 400),
            (gzip.compress(b"x") + b"more", "gzip", 400),
            (gzip.compress(b"x") + gzip.compress(bytes(128 * 1024)), "gzip", 413),
            (gzip.compress(b"x") + gzip.compress(b"y"), "gzip", 201),
            (b"", "gzip", 400),
            (b"x", "br", 415),
            (b"x", "identity", 201),
        ):
            headers = {"Content-Encoding": packed}
            async with session.post("/v1/records", data=data, headers=headers) as answer:
                assert answer.status == status, await answer.text()
        payloads = [record.payload async for record in session.server.logs[""].read()]
        assert payloads == [bytes(128 * 1024), b"xy", b"x"]
        assert session.side._front.held_bytes == 0


async def test_bodies_are_counted_with_all_that_the_server_holds(fronted):
    """One budget owns every byte: what wal clients hold leaves less for requests, and the other way round."""
    limits = Limits(frame_bytes=128 * 1024, pending_total_bytes=128 * 1024)
    async with fronted(limits=limits) as session:
        budget = session.server.budget
        budget.charge(128 * 1024)
        async with session.post("/v1/records", data=b"x" * 1000) as answer:
            assert (answer.status, "try again" in await answer.text()) == (429, True)
        budget.charge(-100 * 1024)
        seen = []
        charge = budget.charge
        budget.charge = lambda cost: (seen.append(cost), charge(cost))
        assert (await session.post("/v1/records", data=b"x" * 1000)).status == 201
        assert (seen, budget.bytes) == ([1000, -1000], 28 * 1024)


async def test_nothing_is_kept_of_a_client_that_goes_away_while_it_is_answered(fronted):
    async with fronted() as session:
        server = session.side._server
        for _ in range(3):
            asking = asyncio.ensure_future(session.post("/v1/topics/t/consumers/c/lease", json={"wait": 60}))
            await until(lambda: server._at_work, 0)
            asking.cancel()
            await until(lambda: not (server.connections or server._at_work), 0)
        assert not server.heard


async def test_nothing_is_kept_of_a_queue_that_is_refused(fronted):
    async with fronted() as session:
        queues = session.side._front._queues
        for body in ({"lease": -1}, {"start": 99}, {"dead_letter": "d"}, {"lease": 30}, {"lease": 60}, {}):
            asking = [session.post(f"/v1/topics/t/consumers/c{n % 2}/lease", json=body) for n in range(4)]
            found = [answer.status for answer in await asyncio.gather(*asking)]
            assert set(found) == {204 if body in ({"lease": 30}, {}) else 409 if body == {"lease": 60} else 400}
        assert (len(queues._opening), len(queues._queues)) == (0, 2)
        assert {queue.users for queue in queues._queues.values()} == {0}


async def test_conditions(fronted):
    async with fronted() as session:
        assert (await session.post("/v1/topics/t", data=b"a", headers={"If-None-Match": "*"})).status == 201
        answer = await session.post("/v1/topics/t", data=b"b", headers={"If-None-Match": "*"})
        status, problem = await told(answer)
        assert (status, problem["type"], problem["expected"], problem["actual"]) == (412, "urn:walsvc:Conflict", 0, 1)
        assert answer.content_type == "application/problem+json"
        assert answer.headers["ETag"] == '"1"'
        assert (await session.post("/v1/topics/t", data=b"b", headers={"If-Match": '"1"'})).status == 201
        assert (await session.post("/v1/topics/t", data=b"1\n2\n", headers={"If-Match": '"1"', **NDJSON})).status == 412
        for bad in (
            {"If-Match": "1"},
            {"If-Match": "*"},
            {"If-None-Match": '"1"'},
            {"If-Match": '"1"', "If-None-Match": "*"},
        ):
            assert (await session.post("/v1/topics/t", data=b"b", headers=bad)).status == 400
        assert session.server.logs[""].next_lsn == 3


@pytest.mark.parametrize(
    "twice", ['If-Match: "0"', "If-None-Match: *", "Idempotency-Key: a", 'Walsvc-Labels: {"a": 1}', "X-Kind: a"]
)
async def test_header_that_stands_twice_is_refused(fronted, twice):
    """One of the two would be ignored: the condition, the key or the labels that the caller meant."""
    name, value = twice.split(": ")
    async with fronted() as session:
        headers = CIMultiDict([(name, value), (name, value)])
        status, problem = await told(await session.post("/v1/topics/t?label_header=X-Kind", data=b"b", headers=headers))
        assert (status, problem["type"]) == (400, "urn:walsvc:BadOption")
        assert f"the header {name} stands there 2 times" in problem["detail"]
        assert session.server.logs[""].next_lsn == 1


async def test_events_behind_an_id_that_is_none_are_refused(fronted):
    async with fronted() as session:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": "garbage"}
        status, problem = await told(await session.get("/v1/topics/t", headers=headers))
        assert (status, problem["type"]) == (400, "urn:walsvc:BadOption")
        assert "Last-Event-ID: garbage is no LSN" in problem["detail"]


async def test_batch_of_lines_is_whole_or_nothing(fronted):
    async with fronted() as session:
        status, document = await told(await session.post("/v1/topics/t", data=b'{"a":1}\r\n\n"b"\n', headers=NDJSON))
        assert (status, document) == (201, {"first_lsn": 1, "last_lsn": 2, "count": 2, "durable": True})
        assert [row["payload"] for row in rows(await (await session.get("/v1/records")).text())] == ['{"a":1}', '"b"']
        status, problem = await told(await session.post("/v1/topics/t", data=b"1\nnot json\n", headers=NDJSON))
        assert (status, "line 2 is not JSON" in problem["detail"]) == (400, True)
        for headers in ({}, {"Idempotency-Key": "k"}, {"Walsvc-Labels": '{"a": 1}'}):
            assert (
                await session.post("/v1/topics/t", data=b"\n" if not headers else b"1\n", headers={**NDJSON, **headers})
            ).status == 400
        assert session.server.logs[""].next_lsn == 3


async def test_pages_follow_each_other_and_filters_choose(fronted, monkeypatch):
    monkeypatch.setattr(reading, "PAGE_BYTES", 1000)
    async with fronted() as session:
        log = session.server.logs[""]
        for number in range(12):
            await log.topic("t").append(b"%d" % number, attributes={"n": number, "even": number % 2 == 0})
        await log.topic("other").append(b"x")
        found, url = [], "/v1/topics/t?limit=4"
        while url:
            async with session.get(url) as answer:
                page = rows(await answer.text())
                assert len(page) <= 4
                found += page
                url = answer.links["next"]["url"].path_qs if "next" in answer.links else None
        assert [row["lsn"] for row in found] == list(range(1, 13))
        assert len(rows(await (await session.get("/v1/topics/t")).text())) < 12, "a page ends at its bytes, too"
        monkeypatch.setattr(reading, "PAGE_BYTES", 1 << 20)
        chosen = rows(await (await session.get("/v1/topics/t?label.even=true&label.n=4&label.n=6&label.n=7")).text())
        assert [row["payload"] for row in chosen] == ["4", "6"]
        assert rows(await (await session.get("/v1/records?start=13")).text())[0]["topic"] == "other"
        assert rows(await (await session.get("/v1/topics/t?since=2100-01-01T00:00:00Z")).text()) == []
        for bad in ("start=0", "start=x", "limit=0", "limit=10001", "since=soon", "typ=1", "type=x"):
            assert (await session.get(f"/v1/topics/t?{bad}")).status == 400, bad


async def test_single_records_that_are_not_there(fronted):
    async with fronted() as session:
        log = session.server.logs[""]
        await log.topic("t").append_batch([b"1", b"2", b"3"])
        await log.truncate_before(3)
        assert (await session.get("/v1/topics/t/3")).status == 200
        assert (await session.get("/v1/topics/other/3")).status == 404
        assert (await session.get("/v1/records/4")).status == 404
        status, problem = await told(await session.get("/v1/records/2"))
        assert (status, problem["type"], problem["lsn"]) == (410, "urn:walsvc:Truncated", 2)
        async with session.head("/v1/records/3") as head:
            assert (head.status, head.headers["ETag"], await head.read()) == (200, '"3"', b"")


async def test_large_payload_comes_whole(fronted):
    async with fronted() as session:
        payload = bytes(range(256)) * 2000
        location = (await session.post("/v1/records", data=payload)).headers["Location"]
        assert await (await session.get(location)).read() == payload


async def next_event(stream) -> dict[str, str]:
    event = {}
    while (line := (await stream.readline()).decode().rstrip("\n")) or not event:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value
    return event


async def test_events_come_as_records_do_and_go_on_behind_the_last_one(fronted, monkeypatch):
    monkeypatch.setattr(reading, "ALIVE_SECONDS", 0.01)
    async with fronted() as session:
        log = session.server.logs[""]
        await log.topic("t").append_batch([b"a", b"b"])
        async with session.get("/v1/topics/t", headers={"Accept": "text/event-stream"}) as answer:
            assert answer.content_type == "text/event-stream"
            first, second = await next_event(answer.content), await next_event(answer.content)
            assert (first["id"], json.loads(second["data"])["payload"]) == ("1", "b")
            assert (await answer.content.readline()) == b": alive\n"
            await log.topic("other").append(b"x")
            await log.topic("t").append(b"c")
            assert (await next_event(answer.content))["id"] == "4"
        again = {"Accept": "text/event-stream", "Last-Event-ID": "2"}
        async with session.get("/v1/topics/t?start=1", headers=again) as answer:
            assert (await next_event(answer.content))["id"] == "4"
        await log.truncate_before(4)
        status, problem = await told(await session.get("/v1/topics/t?start=1", headers={"Accept": "text/event-stream"}))
        assert (status, problem["type"]) == (410, "urn:walsvc:Truncated")


async def test_queue_lease_ack_nak_extend(fronted):
    async with fronted() as session:
        jobs = session.server.logs[""].topic("jobs")
        await jobs.append_batch([b"1", b"2", b"3"])
        base = "/v1/topics/jobs/consumers/workers"
        status, given = await told(await session.post(f"{base}/lease", json={"max_records": 2, "max_deliveries": 2}))
        assert status == 200
        one, two = given["deliveries"]
        assert (one["record"]["payload"], one["attempt"], 0 < one["seconds"] <= 30) == ("1", 1, True)
        assert (
            await session.post(f"{base}/extend", json={"deliveries": [one["delivery"]], "seconds": 60})
        ).status == 204
        assert (await session.post(f"{base}/ack", json={"deliveries": [one["delivery"]]})).status == 204
        status, problem = await told(await session.post(f"{base}/ack", json={"deliveries": [one["delivery"]]}))
        assert (status, problem["type"]) == (409, "urn:walsvc:LeaseLost")
        assert (await session.post(f"{base}/nak", json={"deliveries": [two["delivery"]]})).status == 204
        _, again = await told(await session.post(f"{base}/lease", json={"max_records": 10}))
        assert [(each["record"]["payload"], each["attempt"]) for each in again["deliveries"]] == [("2", 2), ("3", 1)]
        assert (await session.post(f"{base}/lease", json={})).status == 204
        tokens = [each["delivery"] for each in again["deliveries"]]
        assert (await session.post(f"{base}/ack", json={"deliveries": [*tokens, "4-1-x"]})).status == 409
        assert (await session.post(f"{base}/ack", json={"deliveries": tokens})).status == 204
        [status] = await jobs.consumers()
        assert (status.lag, status.outstanding) == (0, 0)
        waiting = asyncio.ensure_future(session.post(f"{base}/lease", json={"wait": 30}))
        await jobs.append(b"4")
        assert (await told(await waiting))[1]["deliveries"][0]["record"]["payload"] == "4"


async def test_queue_says_what_is_wrong(fronted):
    async with fronted() as session:
        base = "/v1/topics/jobs/consumers/workers"
        for verb, body in [
            ("lease", {"max_record": 1}),
            ("lease", {"max_records": 0}),
            ("lease", {"wait": 61}),
            ("lease", {"lease": "30"}),
            ("lease", [1]),
            ("ack", {}),
            ("ack", {"deliveries": []}),
            ("ack", {"deliveries": [1]}),
            ("extend", {"deliveries": ["x"]}),
        ]:
            status, problem = await told(await session.post(f"{base}/{verb}", json=body))
            assert status == 400, (verb, body, problem)
        assert (await session.post(f"{base}/ack", data=b"{")).status == 400
        assert (await session.post(f"{base}/ack", json={"deliveries": ["1-1-x"]})).status == 409
        assert (await session.get(f"{base}/ack")).status == 405
        assert (await session.post(f"{base}/steal", json={})).status == 404
        assert (await session.post(f"{base}/lease", json={"lease": 10})).status == 204
        assert (await session.post(f"{base}/lease", json={"lease": 20})).status == 409, "it is open with another lease"


async def test_client_that_goes_away_while_it_waits_leaves_the_record_to_others(fronted):
    async with fronted() as session:
        jobs = session.server.logs[""].topic("jobs")
        gone = asyncio.ensure_future(session.post("/v1/topics/jobs/consumers/w/lease", json={"wait": 30}))
        await until(jobs.consumers, 0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await jobs.append(b"1")
        _, given = await told(await session.post("/v1/topics/jobs/consumers/w/lease", json={"wait": 30}))
        assert given["deliveries"][0]["record"]["payload"] == "1"


async def test_unused_queue_is_closed_and_what_is_out_goes_back(fronted, monkeypatch):
    monkeypatch.setattr(leasing, "UNUSED_SECONDS", -1.0)
    async with fronted() as session:
        jobs = session.server.logs[""].topic("jobs")
        await jobs.append(b"1")
        _, given = await told(await session.post("/v1/topics/jobs/consumers/w/lease", json={"lease": 1000}))
        queues = session.side._front._queues
        await queues.tidy()
        assert (await jobs.consumers())[0].in_use, "a record is out"
        assert (
            await session.post(
                "/v1/topics/jobs/consumers/w/ack", json={"deliveries": [given["deliveries"][0]["delivery"]]}
            )
        ).status == 204
        await queues.tidy()
        assert not (await jobs.consumers())[0].in_use


TOKENS = Tokens(
    (name * 16, Grant(name, frozenset({name[:-1]}), namespaces))
    for name, namespaces in (
        ("appendA", None),
        ("readA", None),
        ("consumeA", None),
        ("adminA", None),
        ("appendB", frozenset({"b"})),
    )
)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name * 16}"}


async def test_denials_are_told_at_the_rate_of_all_of_the_servers_denials(fronted, monkeypatch):
    async with fronted(tokens=TOKENS) as session:
        denials, asked, told = session.server.shared.denials, list[float](), asyncio.Event()
        monkeypatch.setattr(denials, "delay", lambda: (asked.append(1.0), 0.0)[1])
        assert (await session.request("GET", "/v1/records/1", headers=bearer("nobody"))).status == 401
        assert len(asked) == 1
        monkeypatch.setattr(denials, "wait", told.wait)
        waiting = asyncio.ensure_future(session.request("GET", "/v1/records/1", headers=bearer("nobody")))
        assert (await session.request("GET", "/v1/records/1", headers=bearer("readA"))).status == 404
        assert not waiting.done(), "who has a token waits for nobody"
        told.set()
        assert (await waiting).status == 401


async def test_answers_in_json_end_with_a_line_for_terminals_and_refusals_say_what_there_is(fronted):
    async with fronted() as session:
        await session.post("/v1/topics/t", data=b"a")
        for method, path, status, told in (
            ("POST", "/v1/topics/t", 201, b'"lsn": 2'),
            ("GET", "/v1/topics", 200, b'"topics"'),
            ("POST", "/v1/topics/t/consumers/c/lease", 200, b'"deliveries"'),
            ("DELETE", "/v1/records?before=2&force=true", 204, b""),
            ("GET", "/v1/nothing", 404, b"GET /v1/openapi.json lists what there is"),
            ("PUT", "/v1/topics/t", 405, b"use GET, HEAD, POST, DELETE"),
            ("GET", "/topics/t", 404, b"/v1/topics/TOPIC"),
        ):
            answer = await session.request(method, path)
            body = await answer.read()
            assert (answer.status, told in body, body[-1:]) == (status, True, b"\n" if body else b""), body
        assert await (await session.get("/v1/topics/t/2")).read() == b"", "a payload is as it was sent"


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("POST", "/v1/topics/t", "appendA"),
        ("GET", "/v1/topics/t", "readA"),
        ("GET", "/v1/topics", "readA"),
        ("GET", "/v1/records/1", "readA"),
        ("POST", "/v1/topics/t/consumers/c/lease", "consumeA"),
        ("POST", "/v1/consumers/c/nak", "consumeA"),
        ("POST", "/v1/topics/t/consumers/c/seek", "consumeA"),
        ("DELETE", "/v1/topics/t", "adminA"),
        ("DELETE", "/v1/topics/t/1", "adminA"),
        ("DELETE", "/v1/records?before=2", "adminA"),
    ],
)
async def test_rights(fronted, method, path, right):
    async with fronted(tokens=TOKENS) as session:
        await session.server.logs[""].topic("t").append(b"x")
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Digest x"}):
            answer = await session.request(method, path, headers=headers)
            assert (answer.status, "Bearer" in answer.headers["WWW-Authenticate"]) == (401, True)
        for other in ("appendA", "readA", "consumeA", "adminA"):
            status = (await session.request(method, path, headers=bearer(other))).status
            assert (status == 403) == (other != right), (other, status)
        assert (await session.request(method, path, headers=bearer("appendB"))).status == 403
        assert session.server.logs[""].next_lsn == (3 if method == "POST" and right == "appendA" else 2)


async def test_token_as_a_password_and_namespaces(fronted, tmp_path):
    async with fronted(tokens=TOKENS, namespaces=True) as session:
        password = {"Authorization": "Basic " + base64.b64encode(b"hook:" + b"appendB" * 16).decode()}
        assert (await session.post("/v1/namespaces/b/topics/t", data=b"x", headers=password)).status == 201
        assert (await session.post("/v1/namespaces/a/topics/t", data=b"x", headers=password)).status == 403
        assert (await session.get("/v1/namespaces/c/topics", headers=bearer("readA"))).status == 403, (
            "only append makes one"
        )
        assert (await (await session.get("/v1/namespaces/b/topics", headers=bearer("readA"))).json()) == {
            "topics": ["t"]
        }
        assert not (tmp_path / "log" / "c").exists()


async def test_pages_of_other_sites_can_do_nothing(fronted):
    async with fronted() as session:
        for origin in ("https://evil.example", "null", f"http://127.0.0.1:{session.side.port + 1}"):
            answer = await session.post("/v1/topics/t", data=b"x", headers={"Origin": origin})
            assert answer.status == 403
            assert not [name for name in answer.headers if name.startswith("Access-Control")]
        status, problem = await told(await session.post("/v1/topics/t", data=b"x", headers={"Host": "evil.example"}))
        assert (status, problem["type"]) == (421, "about:blank")
        assert (await session.options("/v1/topics/t")).status == 405
        own = {"Origin": f"http://127.0.0.1:{session.side.port}"}
        assert (await session.post("/v1/topics/t", data=b"x", headers=own)).status == 201
        assert session.server.logs[""].next_lsn == 2


async def test_names_are_what_the_path_escapes(fronted):
    async with fronted() as session:
        url = f"{session.side.url}v1/topics/"
        for escaped, name in (("a%2Fb", "a/b"), ("%C3%A9", "é"), ("..", ".."), ("%00", "\0"), ("%FF", None)):
            answer = await session.post(yarl.URL(url + escaped, encoded=True), data=b"x")
            assert (answer.status == 201) == (name is not None), escaped
        assert session.server.logs[""].topics() == ["a/b", "é", "..", "\0"]
        assert (await session.post("/v1/topics/" + "x" * 256, data=b"x")).status == 400


async def test_limits_and_failures_have_their_status(fronted, monkeypatch):
    limits = Limits(frame_bytes=128 * 1024, pending_total_bytes=128 * 1024, idle_seconds=1.0)
    async with fronted(limits=limits) as session:
        assert (await session.post("/v1/records", data=bytes(128 * 1024 + 1))).status == 413

        async def endless():
            for _ in range(200):
                yield bytes(1024)

        assert (await session.post("/v1/records", data=endless())).status in (413, 429)

        async def stuck():
            yield b"x"
            await asyncio.sleep(30)

        assert (await session.post("/v1/records", data=stuck())).status == 408
        front = session.side._front
        assert front._room.taken == 0
        front._room.take(128 * 1024)
        answer = await session.post("/v1/records", data=b"x")
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        front._room.give(128 * 1024)
        log = session.server.logs[""]
        for error, status in (
            (walsvc.NoSpace("full"), 507),
            (walsvc.DurabilityLost("failed"), 500),
            (walsvc.Closed("closed"), 503),
        ):

            def fail(*_, error=error, **__):
                raise error

            monkeypatch.setattr(log, "append", fail)
            assert (await told(await session.post("/v1/records", data=b"x")))[0] == status
        monkeypatch.setattr(log, "append", lambda *_, **__: 1 / 0)
        status, problem = await told(await session.post("/v1/records", data=b"x"))
        assert (status, problem["title"]) == (500, "WalError")


async def test_requests_are_counted_by_what_they_ask_and_how_they_end(fronted):
    async with fronted() as session:
        for method, path, data in (
            *(("POST", "/v1/topics/t", b"x"), ("POST", "/v1/records?form=1", b""), ("GET", "/v1/topics/t", None)),
            *(("GET", "/v1/topics/t/9", None), ("PUT", "/v1/topics/t", b""), ("GET", "/v1/nothing", None)),
            *(("POST", "/v1/topics/t/consumers/c/lease", b"{}"), ("POST", "/v1/topics/t/consumers/c/ack", b"{}")),
        ):
            async with session.request(method, path, data=data):
                pass
        async with session.get("/metrics") as answer:
            text = await answer.text()
    counted = re.findall(r'walsvc_http_requests_total\{status="(\dxx)",verb="(\w+)"\} 1.0', text)
    many = re.findall(r'walsvc_http_requests_total\{status="(\dxx)",verb="(\w+)"\} 2.0', text)
    assert set(counted) == {(status, verb) for verb in ("append", "read") for status in ("2xx", "4xx")} | {
        ("2xx", "lease"),
        ("4xx", "ack"),
    }
    assert many == [("4xx", "other")]


async def test_rate_of_a_token(fronted):
    slow = Tokens([("slow" * 4, Grant("slow", frozenset({"append"}), None, requests_per_second=2.0))])
    async with fronted(tokens=slow, headers={"Authorization": "Bearer " + "slow" * 4}) as session:
        found = [await session.post("/v1/records", data=b"x") for _ in range(5)]
        assert [answer.status for answer in found] == [201, 201, 201, 429, 429]
        assert found[3].headers["Retry-After"] == "1"
        assert session.server.logs[""].next_lsn == 4


def test_document_is_valid():
    from openapi_spec_validator import validate  # imports what no other test needs, and much of it

    validate(openapi.DOCUMENT)


async def test_document_has_every_path_and_verb(fronted):
    async with fronted() as session:
        assert await (await session.get("/v1/openapi.json")).json() == openapi.DOCUMENT
        known = {"namespace": "n", "topic": "t", "lsn": "1", "consumer": "c"}
        for path, operations in openapi.DOCUMENT["paths"].items():
            routes.place_of(path.format(**known))
            for method in ("get", "post", "put", "delete"):
                answer = await session.request(method, path.format(**known).replace("/namespaces/n", ""))
                assert (answer.status == 405) == (method not in operations), (method, path)
        for path in ("/v1/", "/v1/nothing", "/v1/topics/", "/v1/topics/t/x", "/v1/topics/t/1/2", "/v1/namespaces/n"):
            status, problem = await told(await session.get(path))
            assert (status, "openapi.json" in problem["hint"]) == (404, True)
    for told_of, known in (
        (openapi.READING, reading.PARAMETERS),
        (openapi.APPENDING, routes.appending.PARAMETERS),
        (openapi.DELETING, routes.deleting.PARAMETERS),
    ):
        queries = {each["name"].replace("label.NAME", "label.") for each in told_of if each["in"] == "query"}
        assert queries == set(known)


async def test_without_the_setting_there_is_no_front(tmp_path):
    from tests.service.watching import Stub, serving

    async with serving(Stub()) as session:
        assert (await session.post("/v1/topics/t", data=b"x")).status == 404


async def test_stopping_answers_appends_ends_waits_and_gives_records_back(fronted):
    async with fronted() as session:
        log = session.server.logs[""]
        await log.topic("jobs").append(b"1")
        assert (await session.post("/v1/topics/jobs/consumers/w/lease", json={})).status == 200
        events = await session.get("/v1/topics/jobs", headers={"Accept": "text/event-stream"})
        waits = asyncio.ensure_future(session.post("/v1/topics/jobs/consumers/w/lease", json={"wait": 60}))
        allowed = asyncio.Event()

        async def body():
            yield b"x"
            await allowed.wait()

        appends = asyncio.ensure_future(session.post("/v1/records", data=body()))
        front = session.side._front
        await until(lambda: front._appending and len(front._waiting) == 2, 0)
        stopping = asyncio.ensure_future(session.side.end_front(30))
        await until(lambda: front._stopping, 0)
        status, problem = await told(await session.post("/v1/records", data=b"y"))
        assert (status, problem["type"]) == (503, "urn:walsvc:Closed")
        allowed.set()
        await stopping
        assert (await appends).status == 201
        assert isinstance((await asyncio.gather(waits, return_exceptions=True))[0], aiohttp.ClientError)
        await asyncio.gather(events.content.read(), return_exceptions=True)
        [queue] = await log.topic("jobs").consumers()
        assert not queue.in_use
        assert log.next_lsn == 3


@pytest.mark.parametrize("seed", [1, 2])
async def test_anything_at_all_is_answered_holds_nothing_and_does_nothing_without_a_token(tmp_path, seed):
    found = await campaign(400, seed, tmp_path)
    assert found["held"] == 0
    assert {"201", "200", "400", "401"} <= found.keys(), found
