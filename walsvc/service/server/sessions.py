"""The requests of a connection besides appends: calls, and streams of records with the consumers that they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext
from functools import partial
from typing import Any

from walsvc.api import Log
from walsvc.errors import Backpressure, BadOption, Closed, Denied, ProtocolError, WalError
from walsvc.service.server.audit import audited
from walsvc.service.server.auth import Grant
from walsvc.service.server.calls import Calls
from walsvc.service.server.consuming import OPENED, ConsumerStream, Holding, HoldingT, SharedStream
from walsvc.service.server.line import Line
from walsvc.service.server.shared import Name, Shared
from walsvc.service.server.streams import Begin, RecordStream, Stream, range_of, source_of
from walsvc.service.server.turns import CALL_UNITS, CONSUMER_UNITS, LEFT_A_UNIT, OPEN_UNITS
from walsvc.service.server.verbs import IN_PARTS, OF_A_CONSUMER, OF_A_WORKER, OF_SEVERAL, OF_THE_LOG
from walsvc.service.wire.frames import Call, Credit, End, Open, Result
from walsvc.service.wire.methods import METHODS, STREAMS, Method
from walsvc.tasks import begin_task
from walsvc.visible import counted


class Sessions:
    """The calls and streams of one connection."""

    def __init__(self, line: Line, shared: Shared, log: Log, grant: Grant) -> None:
        self._line = line
        self._shared = shared
        self._log = log
        self._rights = grant.rights
        self._calls = Calls(line.pace, self._begin_call, self._called)
        self._tasks: dict[int, asyncio.Task[None]] = {}  # calls, and streams that are being opened or closed
        self._streams: dict[int, Stream] = {}
        self._ending: dict[int, Holding] = {}  # consumers that were given up: calls that came before that have them
        # Streams that are being opened, and which consumer: they count already.
        self._opening: dict[int, Name | None] = {}
        self._counted = 0  # streams of this connection, as the server knows it
        self._over = False
        self._large = asyncio.Lock()  # one large answer at a time
        self._reading = asyncio.Lock()  # and one read of the log

    def __contains__(self, id: int) -> bool:
        return id in self._tasks or id in self._streams or id in self._calls

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    def _begin(self, id: int, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = begin_task(work)
        self._tasks[id] = task
        task.add_done_callback(lambda done: self._ended(id, done))
        return task

    def _ended(self, id: int, task: asyncio.Task[None]) -> None:
        if self._tasks.get(id) is task:
            del self._tasks[id]
            self._opening.pop(id, None)
            self._count()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._line.fail(error)

    def _check_id(self, id: int) -> None:
        """Raise what ends a connection that takes an id twice, or asks without end."""
        if not self._line.claim(id):
            raise ProtocolError(f"request {id} is not answered yet, and its id came again")
        most = self._shared.limits.calls
        count = len(self._tasks) + len(self._calls)
        if count >= most:
            raise Backpressure(
                f"{counted(count, 'call')} unanswered on this connection",
                expected=f"at most {most}",
                hint="wait for answers, or start the server with a higher limit of calls",
            )

    def _chosen(self, table: dict[str, Method], name: str, what: str) -> Method:
        """The method of this name. Raises BadOption where there is none, Denied where the token may not."""
        method = table.get(name)
        if method is None:
            raise BadOption(f"there is no {what} {name[:64]!r}", hint="known: " + ", ".join(sorted(table)))
        if method.right not in self._rights:
            does = "call" if what == "method" else "open"
            raise Denied(f"this token may not {does} {name}", hint=f'it needs the right "{method.right}"')
        return method

    # ---- calls

    def call(self, frame: Call) -> None:
        """CALL."""
        self._check_id(frame.id)
        self._shared.counts.requests["call"] += 1
        calls = self._shared.calls
        if (refusal := calls.refusal()) is not None:
            self._line.answer_error(frame.id, refusal)
            return
        calls.used += 1
        self._calls.add(frame)

    def _begin_call(self, frame: Call) -> None:
        self._begin(frame.id, self._call(frame)).add_done_callback(self._called)

    def _called(self, _: object = None) -> None:
        self._shared.calls.used -= 1

    async def _call(self, frame: Call) -> None:
        line = self._line
        try:
            with audited(line.name, self._log.path, frame.method, frame.args):
                method = self._chosen(METHODS, frame.method, "method")
                args = method.checked(frame.args)
                if method.large:
                    await self._answer_large(frame.id, method, args)
                    return
                if (in_parts := IN_PARTS.get(method.name)) is not None:
                    async for part in in_parts(await self._held(args["stream"], SharedStream), args):
                        line.send(Result(frame.id, part, line.state))
                    return
                value = await self._answer(method, args)
        except WalError as error:
            line.answer_error(frame.id, error)
        else:
            line.send(Result(frame.id, value, line.state))

    async def _answer(self, method: Method, args: dict[str, Any]) -> Any:
        """The answer of a method."""
        if (of_consumer := OF_A_CONSUMER.get(method.name)) is not None:
            return await of_consumer(await self._held(args["stream"], ConsumerStream), args)
        if (of_worker := OF_A_WORKER.get(method.name)) is not None:
            return await of_worker(await self._held(args["stream"], SharedStream), args)
        if (of_several := OF_SEVERAL.get(method.name)) is not None:
            return await of_several(self._log, self._held, args)
        answer = OF_THE_LOG[method.name]
        if method.name == "hold":
            with self._shared.holds.taking(self._log, None, args["name"]):
                return await answer(self._log, args)
        return await answer(self._log, args)

    async def _answer_large(self, id: int, method: Method, args: dict[str, Any]) -> None:
        """Answer what may be long once the client has taken the answers before it: it is made only then."""
        async with self._large:
            await self._line.writable()
            await self._line.pace.turn(CALL_UNITS)
            value = await self._answer(method, args)
            self._line.send(Result(id, value, self._line.state))
            self._line.flush()

    async def _held(self, id: int, kind: type[HoldingT]) -> HoldingT:
        """A consumer that is open on this connection. One that is being opened is waited for: a client that has come back sends
        its calls behind the OPEN, without waiting."""
        if id in self._opening and (task := self._tasks.get(id)) is not None:
            await asyncio.wait([task])
        stream = self._streams.get(id) or self._ending.get(id)
        if not isinstance(stream, kind):
            raise Closed(f"consumer {id} is not open on this connection", hint="open it again")
        return stream

    # ---- streams

    def open(self, frame: Open) -> None:
        """OPEN. The limit is checked here, where the place is taken: opening a consumer waits, and others come meanwhile."""
        self._check_id(frame.id)
        self._shared.counts.requests["open"] += 1
        refusal = self._full() or self._shared.streams.refusal()
        if refusal is None:
            self._opening[frame.id] = None
            self._count()
        self._begin(frame.id, self._open(frame, refusal))

    def _full(self) -> Backpressure | None:
        """The error of one more stream of this connection."""
        most = self._shared.limits.streams
        if len(self._streams) + len(self._opening) < most:
            return None
        return Backpressure(
            f"{counted(most, 'stream')} open on this connection",
            expected=f"at most {most}",
            hint="close some first, or start the server with a higher limit of streams",
        )

    def _count(self) -> None:
        """Tell the server how many streams there are."""
        count = len(self._streams) + len(self._opening)
        self._shared.streams.used += count - self._counted
        self._counted = count

    async def _open(self, frame: Open, refusal: Backpressure | None) -> None:
        line, id = self._line, frame.id
        try:
            await line.pace.turn(CALL_UNITS)
            if self._over:
                return
            method = self._chosen(STREAMS, frame.what, "stream")
            if refusal is not None:
                # Not raised: an error that is kept would hold this frame, and this frame it.
                line.answer_error(id, refusal)
                return
            args = method.checked(frame.args)
            stream: Stream
            opened: dict[str, Any]
            if frame.what in OPENED:
                name = self._opening[id] = (self._log, args["topic"], args["name"])
                await self._shared.closing.free(name)
                async with nullcontext() if line.pace.light else self._shared.turns.openings:
                    await line.pace.turn(CONSUMER_UNITS)
                    await self._shared.closing.free(name)  # its connection may have gone meanwhile
                    with self._shared.consumers.taking(self._log, args["topic"], args["name"]):
                        stream, opened = await OPENED[frame.what](self._log, line, frame, args)
            else:
                turn = self._reading if frame.what == "read" else None
                opened = range_of(self._log, args)
                stream = RecordStream(line, id, frame.credit, self._log.writer.segments.cuts, opened, turn)
                begin = source_of(self._log, frame.what, {**args, **opened}, line.share.turn)
                stream.start(self._pump(id, stream, begin))
        except WalError as error:
            line.answer_error(id, error)
            return
        self._streams[id] = stream
        self._opening.pop(id, None)
        line.send(Result(id, opened, line.state))

    async def _pump(self, id: int, stream: RecordStream, begin: Begin) -> None:
        await stream.pump(begin)
        if self._streams.get(id) is stream:
            del self._streams[id]
            self._count()

    def tell_cut(self) -> None:
        """The log's end was taken back: say so before anything else that is true of it."""
        for stream in self._streams.values():
            if isinstance(stream, RecordStream):
                stream.tell_cut()

    def credit(self, frame: Credit) -> None:
        """CREDIT; for a stream that has ended it says nothing."""
        stream = self._streams.get(frame.id)
        if stream is not None:
            stream.grant(frame.bytes)

    def cancel(self, id: int) -> None:
        """CANCEL: end a stream, or a call's wait."""
        stream = self._streams.pop(id, None)
        if stream is not None:
            self._count()
            closing = self._begin(id, self._close(id, stream))
            if isinstance(stream, Holding):
                self._ending[id] = stream
                self._shared.closing.add(closing, self._name_of(stream))
        elif self._calls.cancel(id):
            self._line.answer_error(id, WalError("the call was cancelled"))
        elif (task := self._tasks.get(id)) is not None:
            self._give_up(id, task)
            self._line.answer_error(id, WalError("the call was cancelled"))

    async def _close(self, id: int, stream: Stream) -> None:
        try:
            if isinstance(stream, Holding):
                await self._calls.begun()
                await asyncio.sleep(0)  # the last one's first step
                self._ending.pop(id, None)
                await asyncio.shield(self._close_consumer(stream))
            else:
                await stream.stop()
        except WalError as error:
            self._line.answer_error(id, error)
        else:
            self._line.send(End(id, self._line.state))

    # ---- ending

    def _close_consumer(self, stream: Holding) -> asyncio.Task[None]:
        """Close a consumer, whoever waits for that."""
        task = begin_task(stream.close())
        self._shared.closing.add(task, self._name_of(stream))
        return task

    def _name_of(self, stream: Holding) -> Name:
        return self._log, stream.consumer.topic, stream.consumer.name

    def _give_up(self, id: int, task: asyncio.Task[None]) -> None:
        """Cancel a call, or an opening. The name of a consumer that was being opened is free when the task has ended."""
        task.cancel()
        self._shared.closing.add(task, self._opening.get(id))

    def give_up(self) -> None:
        """The connection is over. What it has open is ended a few in each turn of the loop, and counts until then; the server waits for
        that before a consumer of the same name is opened. Idempotent."""
        if self._over:
            return
        self._over = True
        count = len(self._calls) + len(self._tasks) + len(self._streams)
        self._shared.closing.tell(self._leave, count // LEFT_A_UNIT)

    def _leave(self) -> None:
        self._calls.give_up()
        later = self._shared.closing.later
        for id in [id for id in self._tasks if id not in self._ending]:
            later(partial(self._end, id), self._opening.get(id), OPEN_UNITS)
        for id, stream in (*self._streams.items(), *self._ending.items()):
            name: Name | None
            name, units = None, OPEN_UNITS
            if isinstance(stream, Holding):
                name, units = self._name_of(stream), CONSUMER_UNITS
            later(partial(self._end, id), name, units)

    def _end(self, id: int) -> asyncio.Task[None] | None:
        """End a call, an opening or a stream of a connection that is over; a task in which that goes on."""
        task = self._tasks.get(id)
        if task is not None and not task.done():
            task.cancel()
            if id not in self._ending:
                return task
        stream = self._streams.pop(id, None) or self._ending.pop(id, None)  # its opening may have ended well meanwhile
        if stream is None:
            return None
        self._count()
        stream.cancel()
        stream.drop()
        return self._close_consumer(stream) if isinstance(stream, Holding) else stream.task

    async def settled(self) -> None:
        """Wait until all calls are answered."""
        await self._calls.begun()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))
