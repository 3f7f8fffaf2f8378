"""DELETE: a topic goes, or records, one by one, by their labels or from the beginning. They need the right `admin`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from aiohttp import web

from walsvc.errors import BadOption, Conflict, InUse
from walsvc.interface import Log, Topic
from walsvc.service.fronts.http.problems import HttpError, json_line
from walsvc.service.fronts.http.reading import no_record, refuse_dropped
from walsvc.service.fronts.http.request import LABEL, LSN_MAX, QUOTED, check_query, header, is_number, number, values_of

PARAMETERS = frozenset({"lsn", "keep", "before", "force", LABEL})
WAYS = "lsn=, before=, keep= or label.NAME= says which; see docs/HTTP.md"


async def record(request: web.BaseRequest, log: Log, topic: str | None, lsn: int) -> web.Response:
    """Hide one record: 204 when that is durable, 404 where there is none."""
    check_query(request, ())
    check_condition(request, lsn)
    refuse_dropped(log, lsn)
    of: Log | Topic = log if topic is None else log.topic(topic)
    if not 1 <= lsn < await log.refresh() or not await of.purge(lsns=[lsn]):
        raise no_record(lsn)
    return web.Response(status=204)


async def records(request: web.BaseRequest, log: Log, topic: str | None) -> web.Response:
    """Hide the records that the query names; a topic without any query goes as a whole."""
    check_condition(request, None)
    check_query(request, PARAMETERS)
    query = request.query
    ways = {LABEL if name.startswith(LABEL) else name for name in query} - {"before", "force"}
    if "force" in query and ("before" not in query or ways):
        raise BadOption("force= goes with before= alone", hint="DELETE ...?before=17&force=true")
    if len(ways) > 1 or (ways and "before" in query and ways != {LABEL}):
        raise BadOption("the query names records in two ways", hint=WAYS)
    if not query:
        return await whole(log, topic)
    before = number(request, "before", None, 1, LSN_MAX)
    if before is not None and before > await log.refresh():
        raise BadOption(f"before={before} was not given out yet", hint=f"the next record gets {log.next_lsn}")
    of: Any = log if topic is None else log.topic(topic)
    if "lsn" in query:
        return purged(await of.purge(lsns=await lsns_of(query.getall("lsn"), log)))
    if "keep" in query:
        if topic is None:
            raise BadOption("keep= is for topics", hint="DELETE /v1/topics/{topic}?keep=1000")
        return purged(await of.purge(keep=number(request, "keep", None, 0, LSN_MAX)))
    if before is None or ways:
        await of.purge(values_of(query), before=before)
    else:
        await truncate(of, before, force=forced(query.get("force", "false")))
    return web.Response(status=204)


async def whole(log: Log, topic: str | None) -> web.Response:
    """Delete a topic with its consumers."""
    if topic is None:
        raise BadOption("the whole log does not go", hint=WAYS)
    try:
        if await log.has_topic(topic):
            with suppress(BadOption):  # another request was faster
                await log.delete_topic(topic)
                return web.Response(status=204)
    except InUse as error:
        raise HttpError(409, error.message, "end what has it open first; the topic is as it was") from None
    raise HttpError(404, f"there is no topic {topic!r}", "GET /v1/topics lists them")


async def truncate(of: Log | Topic, before: int, *, force: bool) -> None:
    """Drop the oldest records of a topic or of the log."""
    try:
        await of.truncate_before(before, force=force)
    except BadOption as error:  # `before` is within its bounds, so somebody holds what is below
        words = error.message.replace(f"truncate_before({before})", f"before={before}")
        raise HttpError(409, words, "wait until it has let them go, or force=true") from None


def purged(count: int | None) -> web.Response:
    """The answer to a purge: how many of the hidden records were visible."""
    return web.json_response({"purged": count or 0}, dumps=json_line)


async def lsns_of(texts: list[str], log: Log) -> list[int]:
    """The LSNs that a query names. Raises BadOption."""
    if not all(is_number(text) for text in texts):
        raise BadOption("lsn= is no LSN", hint="DELETE ...?lsn=17&lsn=20")
    lsns, following = [int(text) for text in texts], await log.refresh()
    if not 1 <= min(lsns) <= max(lsns) < following:
        raise BadOption(f"lsn= is out of bounds: 1 to {following - 1}", hint="name records that are there")
    return lsns


def forced(text: str) -> bool:
    """True if a truncation shall drop what a hold keeps."""
    if text not in ("true", "false"):
        raise BadOption(f"force={text[:64]!r} is not known", hint="force=true, or leave it out")
    return text == "true"


def check_condition(request: web.BaseRequest, lsn: int | None) -> None:
    """Refuse a condition that does not hold, and, of what is no single record (None), any."""
    match, none = header(request, "If-Match"), header(request, "If-None-Match")
    if none is not None or (match is not None and lsn is None):
        raise BadOption("DELETE has no such condition", hint="leave If-Match and If-None-Match out")
    if match is None or match.strip() == "*":
        return
    found = QUOTED.fullmatch(match)
    if found is None or int(found[1]) != lsn:
        raise Conflict("If-Match names another record, or none", expected=match[:64], actual=lsn)
