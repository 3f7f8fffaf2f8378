"""POST: a body becomes a record, or each of its lines one."""

from __future__ import annotations

from typing import Any

from aiohttp import hdrs, web
from multidict import MultiDict, MultiDictProxy, MultiMapping, istr

from walsvc.errors import BadOption
from walsvc.interface import Log, Topic
from walsvc.log.commit.conditions import check_key
from walsvc.model import AppendResult, Mode, Quorum, Relaxed, Strict
from walsvc.service.fronts.http.brief import Brief, is_plain
from walsvc.service.fronts.http.problems import HttpError, json_line
from walsvc.service.fronts.http.request import (
    LABEL,
    TYPE_MAX,
    check_query,
    expected_of,
    header,
    json_of,
    lines_of,
    number,
    time_of,
    values_of,
)

MODES: dict[str, Mode] = {"strict": Strict, "relaxed": Relaxed, "quorum": Quorum}
PARAMETERS = frozenset({"mode", "type", "label_header", "dedupe_header", "not_before", LABEL})
Query = MultiMapping[str]
NO_QUERY: Query = MultiDictProxy(MultiDict())
# Names of headers are found faster where they are istr.
LABELS, DEDUPE = istr("Walsvc-Labels"), istr("Idempotency-Key")
JSON = "application/json"
BATCH = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})


async def append(request: web.BaseRequest, log: Log, topic: Topic | None, body: bytes) -> web.StreamResponse:
    """Append to a topic, or to none, and answer when the records are durable."""
    into: Log | Topic = log if topic is None else topic
    query: Query = request.query if request.rel_url.raw_query_string else NO_QUERY
    mode = Strict
    if query is not NO_QUERY:
        check_query(request, PARAMETERS)
        mode = mode_of(query.get("mode", "strict"))
    if mode is Quorum and log.replicated_lsn is None:
        raise BadOption("the log is not replicated", hint="mode=strict, or start the server with --replicate")
    kind = request.headers.get(hdrs.CONTENT_TYPE, JSON)
    if kind != JSON and kind.partition(";")[0].strip().lower() in BATCH:
        return await append_lines(request, into, body, mode)
    options: dict[str, Any] = {}
    if (expected := expected_of(request)) is not None:
        options["expected"] = expected
    if (dedupe := dedupe_of(request, query)) is not None:
        options["dedupe"] = dedupe
    if "not_before" in query:
        if topic is None:
            raise BadOption("not_before= is for topics", hint="POST /v1/topics/{topic}")
        options["not_before"] = time_of("not_before", query["not_before"])
    type = number(request, "type", 0, 0, TYPE_MAX) if "type" in query else 0
    result = await into.append(body, mode, type or 0, labels_of(request, query), **options)
    status = 200 if result.duplicate else 201 if result.durable else 202
    return answer(request, status, result, result, told_of(result))


def told_of(result: AppendResult) -> str:
    """Encode the place of a record as JSON, in half the time of json.dumps."""
    durable, duplicate = "true" if result.durable else "false", "true" if result.duplicate else "false"
    return (
        f'{{"lsn": {result.lsn}, "segment_id": {result.segment_id}, "offset": {result.offset}, '
        f'"encoded_len": {result.encoded_len}, "durable": {durable}, "sync_us": {result.sync_us}, "duplicate": {duplicate}}}\n'
    )


def mode_of(name: str) -> Mode:
    """The mode that the query asks for."""
    if name not in MODES:
        raise BadOption(f"mode={name[:64]!r} is not known", hint="one of: " + ", ".join(MODES))
    return MODES[name]


async def append_lines(request: web.BaseRequest, into: Log | Topic, body: bytes, mode: Mode) -> web.StreamResponse:
    """Append the lines of a body, all or none."""
    query = request.query
    if dedupe_of(request, query) is not None or labels_of(request, query) or "type" in query or "not_before" in query:
        raise HttpError(
            400, "the lines of a batch have no labels, type, time or Idempotency-Key", "send single records for that"
        )
    lines = lines_of(body)
    if not lines:
        raise HttpError(400, "the body has no lines", "one JSON value in each line")
    results = await into.append_batch(lines, mode, expected=expected_of(request))
    first, last, durable = results[0].lsn, results[-1].lsn, results[-1].durable
    told = {"first_lsn": first, "last_lsn": last, "count": len(results), "durable": durable}
    return answer(request, 201 if durable else 202, results[0], results[-1], json_line(told))


def answer(
    request: web.BaseRequest, status: int, first: AppendResult, last: AppendResult, told: str
) -> web.StreamResponse:
    """Answer an append: 201 with the place of the records; 202 where they are only accepted; 200 where the key had been used before."""
    tag, location, body = f'"{last.lsn}"', f"{request.rel_url.raw_path}/{first.lsn}", told.encode()
    if is_plain(request):
        return Brief(status, f"Content-Type: {JSON}\r\nETag: {tag}\r\nLocation: {location}\r\n", body)
    return web.Response(status=status, body=body, content_type=JSON, headers={"ETag": tag, "Location": location})


def labels_of(request: web.BaseRequest, query: Query) -> dict[str, Any] | None:
    """The labels of a record: the JSON object in Walsvc-Labels, `label.NAME=VALUE` of the query, and the headers that `label_header` names."""
    found: dict[str, Any] = {}
    if (text := header(request, LABELS)) is not None:
        try:
            found = json_of(text)
        except ValueError as error:
            raise BadOption(
                f"Walsvc-Labels is not JSON: {error}", hint='Walsvc-Labels: {"key": "customer-1"}'
            ) from None
        if not isinstance(found, dict):
            raise BadOption("Walsvc-Labels is no JSON object", hint='Walsvc-Labels: {"key": "customer-1"}')
    if query is NO_QUERY:
        return found or None
    found |= values_of(query)
    for name in query.getall("label_header", []):
        if (text := header(request, name)) is not None:
            found[name] = text
    return found or None


def dedupe_of(request: web.BaseRequest, query: Query) -> str | None:
    """The caller's key: the header Idempotency-Key, or the one that `dedupe_header` names, as a provider of webhooks has it."""
    name = query.get("dedupe_header", DEDUPE)
    key = header(request, name)
    if key is None:
        if "dedupe_header" in query:
            raise BadOption(f"the header {name[:64]!r}, which dedupe_header names, is not there")
        return None
    try:
        check_key(key)
    except BadOption as error:
        raise BadOption(f"{name[:64]}: {key[:64]!r} is no key", hint=error.hint) from None
    return key
