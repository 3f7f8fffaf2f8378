"""A process that writes a log which is copied elsewhere meanwhile, and writes down what it was told.

    python -m tests.engines.copied PATH JOURNAL RUN --replicate URL
    python -m tests.engines.copied PATH JOURNAL RUN --archive URL

It appends from several tasks, alone and in batches, to topics and to none, reads with a durable consumer and with a shared one,
which acknowledges in any order, and truncates at both ends and purges. Each payload is like no other and says how long it is.

The journal is a file of JSON rows [kind, kept, tag, values...]: a row before each change (`try`), one behind it with its
answer. `kept`: the copy has it, by mode Quorum or by wait_replicated. `tag` is the number of the next record: a copy that holds it, or a
later one, holds the change as well, since copies are made in the log's order. What the rows demand of a copy is in told.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
from collections import deque
from pathlib import Path
from typing import Any

import walsvc
from walsvc import LeaseLost, Quorum, Record, ReplicaLost, Strict, Truncated
from walsvc.config import WalConfig
from walsvc.engines.archive import Archive, Archiver
from walsvc.log.read.pins import ARCHIVE_HOLD

SEGMENT = 65536
APPENDERS = 6
KEEP = 1000  # records that are done and copied, and that truncation leaves
JOBS, NOTES = "jobs", "notes"


def payload_of(run: int, tag: int) -> bytes:
    """The payload of a record, which no other has."""
    return b"%d.%d " % (run, tag) * (1 + tag % 40)


class Gate:
    """Lets many through, or one alone."""

    def __init__(self) -> None:
        self._free = asyncio.Condition()
        self._inside = 0
        self._asked = False  # somebody is alone, or wants to be

    @contextlib.asynccontextmanager
    async def among_others(self) -> Any:
        """Wait while somebody is alone."""
        async with self._free:
            await self._free.wait_for(lambda: not self._asked)
            self._inside += 1
        try:
            yield
        finally:
            async with self._free:
                self._inside -= 1
                self._free.notify_all()

    @contextlib.asynccontextmanager
    async def alone(self) -> Any:
        """Wait until nobody is inside, and keep everybody out."""
        self._asked = True
        async with self._free:
            await self._free.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            async with self._free:
                self._asked = False
                self._free.notify_all()


class Writer:
    """One run of the program over one opened log."""

    def __init__(self, log: Any, journal: int, run: int, *, replicated: bool) -> None:
        self._log = log
        self._journal = journal
        self._run = run
        self._replicated = replicated
        self._chance = random.Random(run)
        self._tags = 0
        self._gate = Gate()
        self._notes: deque[int] = deque(maxlen=200)  # LSNs that may be purged

    def say(self, *row: Any, kept: bool = False) -> None:
        """Write a row down. It outlives this process."""
        os.write(self._journal, json.dumps([row[0], int(kept), self._tags, *row[1:]]).encode() + b"\n")

    async def sure(self, *, often: float = 0.5) -> bool:
        """Wait until the copy has all that was changed; not each time, and not where nobody says so."""
        if not self._replicated or self._chance.random() > often:
            return False
        await self._log.wait_replicated(0)
        return True

    async def run(self, archiver: Archiver | None) -> None:
        """Write until killed, or until the replica is lost."""
        reader = await self._log.consumer("reader")
        workers = await self._log.topic(JOBS).consumer("workers", shared=True)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(APPENDERS):
                    group.create_task(self._append())
                group.create_task(self._read(reader))
                group.create_task(self._work(workers))
                group.create_task(self._change())
                if archiver is not None:
                    group.create_task(self._watch(archiver))
        except* ReplicaLost as errors:
            self.say("lost", str(errors.exceptions[0]))

    async def _append(self) -> None:
        chance = self._chance
        while True:
            async with self._gate.among_others():
                count = chance.randint(2, 12) if chance.random() < 0.2 else 1
                tags = range(self._tags, self._tags + count)
                self._tags += count
                payloads = [payload_of(self._run, tag) for tag in tags]
                mode = Quorum if self._replicated and chance.random() < 0.7 else Strict
                topic = chance.choice((None, JOBS, NOTES))
                target = self._log if topic is None else self._log.topic(topic)
                if count == 1:
                    answers = [await target.append(payloads[0], mode=mode)]
                else:
                    answers = await target.append_batch(payloads, mode=mode)
                placed = [[answer.lsn, tag] for answer, tag in zip(answers, tags, strict=True)]
                self.say("put", placed, kept=mode is Quorum)
                if mode is Strict and self._replicated and chance.random() < 0.3:
                    await self._log.wait_replicated(answers[-1].lsn)
                    self.say("put", placed, kept=True)
                if topic == NOTES:
                    self._notes += [answer.lsn for answer in answers]
            await asyncio.sleep(chance.random() * 0.004)  # a pace that a copy can keep

    async def _read(self, reader: Any) -> None:
        while True:
            record = await reader.next()
            async with self._gate.among_others():
                if record.lsn >= self._log.next_lsn:
                    continue  # it was cut off before it could be acknowledged
                self.say("try ack", "reader", record.lsn)
                await reader.ack(record.lsn)
                self.say("ack", "reader", record.lsn, kept=await self.sure(often=0.2))

    async def _work(self, workers: Any) -> None:
        while True:
            deliveries = list(await workers.read_batch(max_records=8))
            self._chance.shuffle(deliveries)
            for delivery in deliveries:
                lsn = delivery.record.lsn
                async with self._gate.among_others():
                    with contextlib.suppress(LeaseLost, Truncated):  # cut off meanwhile
                        if self._chance.random() < 0.2:
                            await delivery.nak()
                            continue
                        self.say("try ack", "workers", lsn)
                        await delivery.ack()
                        self.say("ack", "workers", lsn, kept=await self.sure(often=0.2))

    async def _change(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(0.02, 0.3))
            way = self._chance.random()
            if way < 0.4:
                await self._drop()
            elif way < 0.8:
                await self._purge()
            else:
                await self._cut()

    async def _drop(self) -> None:
        log = self._log
        consumed = min(each.position for each in await log.consumers())
        lsn = min(consumed, *log.holds().values()) - KEEP
        if lsn > log.first_lsn:
            async with self._gate.among_others():
                self.say("try drop", lsn)
                await log.truncate_before(lsn)
                self.say("drop", lsn, kept=await self.sure())

    async def _purge(self) -> None:
        async with self._gate.among_others():
            taken = {self._notes.popleft() for _ in range(min(3, len(self._notes)))}
            lsns = [lsn for lsn in sorted(taken) if self._log.first_lsn <= lsn < self._log.next_lsn]
            if lsns:
                self.say("try purge", lsns)
                await self._log.topic(NOTES).purge(lsns=lsns)
                self.say("purge", lsns, kept=await self.sure())

    async def _cut(self) -> None:
        async with self._gate.alone():
            log = self._log
            lsn = max(log.next_lsn - self._chance.randint(2, 30), log.first_lsn)
            if lsn >= log.next_lsn:
                return
            self.say("try cut", lsn)
            await log.truncate_after(lsn)
            self._notes = deque((each for each in self._notes if each <= lsn), maxlen=200)
            self.say("cut", lsn, kept=await self.sure())

    async def _watch(self, archiver: Archiver) -> None:
        """Write down how far the log says that it is archived."""
        said = 0
        while True:
            async with self._gate.among_others():
                archived = self._log.holds()[ARCHIVE_HOLD]
                if archived != said:
                    self.say("kept", archived, kept=True)
                    said = archived
            await asyncio.sleep(0.02)


def opening(path: Path, replicate: str | None = None) -> Any:
    """walsvc.open for a log of small segments."""
    return walsvc.open(path, replicate=replicate, config=WalConfig(segment_bytes=SEGMENT, disk="threads"))


def tag_of(record: Record) -> tuple[int, int]:
    """Run and tag of a record. ValueError where it is none that a Writer has appended."""
    run, _, tag = record.payload.partition(b" ")[0].partition(b".")
    found = int(run), int(tag)
    if record.payload != payload_of(*found):
        raise ValueError(f"LSN {record.lsn} holds what nobody has appended")
    return found


async def work(options: argparse.Namespace) -> None:
    """Write to a log, and have it archived meanwhile where that is wanted."""
    journal = os.open(options.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with contextlib.AsyncExitStack() as stack:
        log = await stack.enter_async_context(opening(options.path, options.replicate))
        archiver = None
        if options.archive is not None:
            archive = Archive.at(options.archive, **json.loads(options.store))
            archiver = await stack.enter_async_context(Archiver(log, archive, interval=0.05))
        await Writer(log, journal, options.run, replicated=options.replicate is not None).run(archiver)


def main() -> None:
    """Write until killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("journal", type=Path)
    parser.add_argument("run", type=int)
    parser.add_argument("--replicate")
    parser.add_argument("--archive")
    parser.add_argument("--store", default="{}", help="options of the archive's store, as JSON")
    asyncio.run(work(parser.parse_args()))


if __name__ == "__main__":
    main()
