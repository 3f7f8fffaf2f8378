"""The HTTP front itself: which function answers a path, which right it needs, and how errors are answered."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

from aiohttp import web

from walsvc.errors import BadOption, Closed, WalError
from walsvc.interface import Log, Topic
from walsvc.service.fronts.access import Access, Room, check_right, log_of
from walsvc.service.fronts.http import appending, deleting, leasing, openapi, reading
from walsvc.service.fronts.http.problems import HttpError, json_line, problem_of
from walsvc.service.fronts.http.request import Body, check_origin, check_query, is_number, token_of
from walsvc.service.server.auth import Grant
from walsvc.service.server.limits import Limits
from walsvc.service.wire.methods import ADMIN, APPEND, CONSUME, READ
from walsvc.tasks import begin_task

PREFIX = "/v1/"
JSON_BYTES_MAX = 1 << 20  # of a body that is no record
TIDY_SECONDS = 5.0
TOPICS_MAX = 1_024  # that are remembered
KNOWN_BYTES_MAX = 256  # of a path that is remembered
METHODS = {
    "document": ("GET", "HEAD"),
    "topics": ("GET", "HEAD"),
    "records": ("GET", "HEAD", "POST", "DELETE"),
    "record": ("GET", "HEAD", "DELETE"),
}
CHANGING = {"POST": "append", "DELETE": "delete"}
CLASSES = tuple(f"{hundreds}xx" for hundreds in range(6))  # of a status
VERBS = ("lease", "ack", "nak", "extend", "seek")
logger: logging.Logger = logging.getLogger("walsvc.service")


class Place(NamedTuple):
    """What a path names.

    Attributes:
        kind: "topics", "records", "record", "queue" or "document".
        namespace: "" is the log of the directory itself.
        topic: None: the whole log.
        lsn: of a single record.
        consumer, verb: of a queue.
    """

    kind: str
    namespace: str
    topic: str | None = None
    lsn: int = 0
    consumer: str = ""
    verb: str = ""


class HttpFront:
    """Answers what is asked below /v1. `start` and `stop` belong around it.

    Args:
        access: the server.
        limits: of the server; records are bounded by frame_bytes, all bodies together by the server's budget, silence by idle_seconds.

    Attributes:
        answered: requests by verb and class of the status, such as ("append", "2xx").
    """

    def __init__(self, access: Access, limits: Limits) -> None:
        self.answered: Counter[tuple[str, str]] = Counter()
        self._access = access
        self._limits = limits
        self._room = Room(access.budget)
        self._queues = leasing.Queues(access)
        self._topics: dict[tuple[Log, str], Topic] = {}
        self._tidying: asyncio.Task[None] | None = None
        self._stopping = False
        self._appending: set[asyncio.Task[object]] = set()
        self._waiting: set[asyncio.Task[object]] = set()

    @property
    def held_bytes(self) -> int:
        """Bytes of requests and answers that are under way."""
        return self._room.taken

    async def start(self) -> None:
        """Begin to close queues without users, at regular times."""
        self._tidying = begin_task(self._tidy())

    async def stop(self, seconds: float = 0.0) -> None:
        """Refuse further requests, end those that wait for records, answer appends for `seconds`, and give back what is out. Idempotent;
        the logs must be open still."""
        self._stopping = True
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)
        for task in self._waiting:
            task.cancel()
        left = self._appending | self._waiting
        if left:
            _, late = await asyncio.wait(left, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._queues.tidy(everything=True)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            self._topics.clear()  # of logs that are closed, too
            await self._queues.tidy()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request whose path begins with PREFIX."""
        path, task = request.rel_url.raw_path, asyncio.current_task()
        assert task is not None, "a request is answered in a task"
        at_work = self._appending if request.method in CHANGING and "/consumers/" not in path else self._waiting
        at_work.add(task)
        verb, status = "other", 499  # the client is gone and reads no answer, as nginx has it
        try:
            place = place_of(path)
            verb = verb_of(request.method, place)
            if place.kind == "document":
                check_method(request, *METHODS["document"])
                response: web.StreamResponse = web.json_response(openapi.DOCUMENT, dumps=json_line)
            elif (grant := self._grant(request)) is None:
                await self._access.denied()
                raise unknown_token(request)
            else:
                response = await self._call(request, place, grant)
            status = response.status
            return response
        except (WalError, HttpError) as error:
            refusal = problem_of(error, path)
            status = refusal.status
            return refusal
        except ConnectionError:
            raise  # nobody is there to read an answer
        except Exception as error:
            status = 500
            logger.exception("HTTP %s %s: unexpected error", request.method, path)
            return problem_of(WalError(f"the server has met an unexpected error: {type(error).__name__}"), path)
        finally:
            at_work.discard(task)
            self.answered[verb, CLASSES[status // 100]] += 1

    def _grant(self, request: web.BaseRequest) -> Grant | None:
        """The rights of the request's token; None: it is not known. Raises Closed, and HttpError for a page of another site."""
        if self._stopping:
            raise Closed("the server is stopping", hint="try again in a moment")
        check_origin(request)
        return self._access.grant(token_of(request))

    def _call(self, request: web.BaseRequest, place: Place, grant: Grant) -> Coroutine[Any, Any, web.StreamResponse]:
        """The call that a request asks for. Raises HttpError for one that comes too early, or that there is not."""
        if (pause := self._access.admit(grant, request.content_length or 0)) > 0:
            words = f"token {grant.name!r} asks faster than it may"
            raise HttpError(
                429, words, "see its rates in the server's token file", {"Retry-After": str(math.ceil(pause))}
            )
        if place.kind == "queue":
            return self._queue(request, place, grant)
        check_method(request, *METHODS[place.kind])
        if request.method == "POST":
            return self._append(request, place, grant)
        if request.method == "DELETE":
            return self._delete(request, place, grant)
        return self._read(request, place, grant)

    async def _append(self, request: web.BaseRequest, place: Place, grant: Grant) -> web.StreamResponse:
        check_right(grant, APPEND, "append")
        async with (
            log_of(self._access, grant, place.namespace) as log,
            Body(request, self._room, self._limits.frame_bytes, self._limits.idle_seconds) as body,
        ):
            return await appending.append(request, log, self._topic(log, place.topic), body)

    def _topic(self, log: Log, name: str | None) -> Topic | None:
        """The topic of that name; those that were asked for lately are remembered."""
        if name is None:
            return None
        topic = self._topics.get((log, name))
        if topic is None:
            if len(self._topics) >= TOPICS_MAX:
                self._topics.clear()
            topic = self._topics[log, name] = log.topic(name)
        return topic

    async def _delete(self, request: web.BaseRequest, place: Place, grant: Grant) -> web.StreamResponse:
        check_right(grant, ADMIN, "delete")
        async with log_of(self._access, grant, place.namespace) as log:
            if place.kind == "record":
                return await deleting.record(request, log, place.topic, place.lsn)
            if place.topic is not None and not request.rel_url.raw_query_string:
                await self._queues.let_go(place.namespace, place.topic)
            return await deleting.records(request, log, place.topic)

    async def _read(self, request: web.BaseRequest, place: Place, grant: Grant) -> web.StreamResponse:
        check_right(grant, READ, "read")
        async with log_of(self._access, grant, place.namespace) as log:
            silence = self._limits.idle_seconds
            if place.kind == "record":
                check_query(request, ())
                return await reading.single(request, log, place.topic, place.lsn, silence)
            if place.kind == "topics":
                check_query(request, ())
                return await reading.topics(log)
            if reading.EVENTS in request.headers.get("Accept", ""):
                return await reading.events(request, log, place.topic, silence)
            return await reading.page(request, log, place.topic, self._room, silence)

    async def _queue(self, request: web.BaseRequest, place: Place, grant: Grant) -> web.StreamResponse:
        check_method(request, "POST")
        check_query(request, ())
        check_right(grant, CONSUME, "consume")
        if not grant.opens(place.namespace):
            raise HttpError(403, f"token {grant.name!r} does not open this namespace")
        key = (place.namespace, place.topic, place.consumer)
        async with Body(request, self._room, JSON_BYTES_MAX, self._limits.idle_seconds) as body:
            match place.verb:
                case "lease":
                    return await self._queues.lease(grant, key, body)
                case "ack":
                    return await self._queues.ack(key, body)
                case "nak":
                    return await self._queues.nak(key, body)
                case "extend":
                    return await self._queues.extend(key, body)
                case _:
                    return await self._queues.seek(grant, key, body)


def unknown_token(request: web.BaseRequest) -> HttpError:
    """The error for a request whose token is not known, or that has none."""
    ways = {"WWW-Authenticate": 'Bearer realm="walsvc", Basic realm="walsvc", charset="UTF-8"'}
    words = "the token is not known" if token_of(request) else "a token is needed"
    return HttpError(401, words, "Authorization: Bearer TOKEN, or as the password of any user", ways)


def verb_of(method: str, place: Place) -> str:
    """The verb of a request, for counting: a word for each call of the front, "other" for any other request."""
    if place.kind == "queue":
        return place.verb
    if place.kind == "document" or method not in METHODS[place.kind]:
        return "other"
    return CHANGING.get(method, "read")


def check_method(request: web.BaseRequest, *allowed: str) -> None:
    """Raise HttpError for a method that this path does not have."""
    if request.method not in allowed:
        methods = ", ".join(allowed)
        raise HttpError(405, f"{request.method} is nothing for this path", f"use {methods}", {"Allow": methods})


def place_of(path: str) -> Place:
    """The call and the arguments that a path names; paths that were asked for lately are remembered."""
    return known_place(path) if len(path) <= KNOWN_BYTES_MAX else parsed(path)


@lru_cache(1024)
def known_place(path: str) -> Place:
    """The same for a short path; results are remembered."""
    return parsed(path)


def parsed(path: str) -> Place:
    """The call and the arguments that a path names. HttpError where there is no such path, BadOption for an escape that is not UTF-8."""
    try:
        parts = [unquote(part, errors="strict") for part in path.removeprefix(PREFIX).split("/")]
    except UnicodeDecodeError:
        raise BadOption(f"{path[:200]} is not UTF-8", hint="escape names as UTF-8, %C3%A9 for é") from None
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    match parts:
        case ["openapi.json"] if not namespace:
            return Place("document", namespace)
        case ["topics"]:
            return Place("topics", namespace)
        case ["records"]:
            return Place("records", namespace)
        case ["topics", topic] if topic:
            return Place("records", namespace, topic)
        case ["records", lsn] if is_number(lsn):
            return Place("record", namespace, None, int(lsn))
        case ["topics", topic, lsn] if topic and is_number(lsn):
            return Place("record", namespace, topic, int(lsn))
        case ["topics", topic, "consumers", consumer, verb] if topic and consumer and verb in VERBS:
            return Place("queue", namespace, topic, 0, consumer, verb)
        case ["consumers", consumer, verb] if consumer and verb in VERBS:
            return Place("queue", namespace, None, 0, consumer, verb)
    raise HttpError(404, "there is nothing at this path", f"GET {PREFIX}openapi.json lists what there is")
