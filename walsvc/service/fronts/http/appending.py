"""POST: a body becomes a record, or each of its lines one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from walsvc.errors import BadOption
from walsvc.interface import Log, Topic
from walsvc.model import AppendResult, Mode, Quorum, Relaxed, Strict
from walsvc.service.fronts.http.problems import HttpError
from walsvc.service.fronts.http.request import LABEL, check_query, expected_of, lines_of, number, time_of, value_of

MODES: dict[str, Mode] = {"strict": Strict, "relaxed": Relaxed, "quorum": Quorum}
PARAMETERS = ("mode", "type", "label_header", "dedupe_header", "not_before", LABEL)
BATCH = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})


async def append(request: web.BaseRequest, log: Log, topic: str | None, body: bytes) -> web.Response:
    """Append, and answer when the records are durable."""
    check_query(request, PARAMETERS)
    into: Log | Topic = log if topic is None else log.topic(topic)
    mode = MODES.get(request.query.get("mode", "strict"))
    if mode is None:
        raise BadOption(f"mode={request.query['mode'][:64]!r} is not known", hint="one of: " + ", ".join(MODES))
    if request.content_type in BATCH:
        return await append_lines(request, into, body, mode)
    options: dict[str, Any] = {"expected": expected_of(request), "dedupe": dedupe_of(request)}
    if "not_before" in request.query:
        if topic is None:
            raise BadOption("not_before= is for topics", hint="POST /v1/topics/{topic}")
        options["not_before"] = time_of("not_before", request.query["not_before"])
    result = await into.append(
        body, mode, type=number(request, "type", 0, 0, 65_535) or 0, attributes=labels_of(request), **options
    )
    return answer(request, [result], dataclass_of(result), duplicate=result.duplicate)


async def append_lines(request: web.BaseRequest, into: Log | Topic, body: bytes, mode: Mode) -> web.Response:
    """Append the lines of a body, all or none."""
    if dedupe_of(request) is not None or labels_of(request) or "type" in request.query or "not_before" in request.query:
        raise HttpError(
            400, "the lines of a batch have no labels, type, time or Idempotency-Key", "send single records for that"
        )
    lines = lines_of(body)
    if not lines:
        raise HttpError(400, "the body has no lines", "one JSON value in each line")
    results = await into.append_batch(lines, mode, expected=expected_of(request))
    first, last = results[0].lsn, results[-1].lsn
    return answer(
        request, results, {"first_lsn": first, "last_lsn": last, "count": len(results), "durable": results[-1].durable}
    )


def dataclass_of(result: AppendResult) -> dict[str, Any]:
    """The answer to one append."""
    return {**result._asdict(), "duplicate": result.duplicate}


def answer(
    request: web.BaseRequest, results: Sequence[AppendResult], document: dict[str, Any], *, duplicate: bool = False
) -> web.Response:
    """201 with the place of the records; 202 where they are only accepted; 200 where the key had been used before."""
    status = 200 if duplicate else 201 if results[-1].durable else 202
    path = request.rel_url.raw_path
    headers = {"ETag": f'"{results[-1].lsn}"', "Location": f"{path}/{results[0].lsn}"}
    return web.Response(
        status=status, body=json.dumps(document).encode(), content_type="application/json", headers=headers
    )


def labels_of(request: web.BaseRequest) -> dict[str, Any] | None:
    """The labels of a record: the JSON object in Walsvc-Labels, `label.NAME=VALUE` of the query, and the headers that `label_header` names."""
    found: dict[str, Any] = {}
    if (text := request.headers.get("Walsvc-Labels")) is not None:
        try:
            found = json.loads(text)
        except ValueError as error:
            raise BadOption(
                f"Walsvc-Labels is not JSON: {error}", hint='Walsvc-Labels: {"key": "customer-1"}'
            ) from None
        if not isinstance(found, dict):
            raise BadOption("Walsvc-Labels is no JSON object", hint='Walsvc-Labels: {"key": "customer-1"}')
    for name in dict.fromkeys(request.query):
        if name.startswith(LABEL):
            if len(values := request.query.getall(name)) > 1:
                raise BadOption(f"{name} is there {len(values)} times", hint="a record has one value of each label")
            found[name.removeprefix(LABEL)] = value_of(values[0])
    for name in request.query.getall("label_header", []):
        if name in request.headers:
            found[name] = request.headers[name]
    return found or None


def dedupe_of(request: web.BaseRequest) -> str | None:
    """The caller's key: the header Idempotency-Key, or the one that `dedupe_header` names, as a provider of webhooks has it."""
    if (other := request.query.get("dedupe_header")) is None:
        return request.headers.get("Idempotency-Key")
    if other not in request.headers:
        raise BadOption(f"the header {other[:64]!r}, which dedupe_header names, is not there")
    return request.headers[other]
