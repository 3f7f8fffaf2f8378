"""The campaigns of replication and archive have in common: a log, its writers one after the other, and copies held against what they were told."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.engines.told import Copy, Outcome, Told, compare_with_whole, copy_in
from tests.waiting import until

PATIENCE = 150.0  # until records reach the copy again


class WriterEnded(Exception):
    """A writer has ended that should go on for ever; `errors` of the outcome has its last words."""


class Campaign:
    """One log and its writers. What the copy is, and how it is reached, is a subclass's.

    Attributes:
        faults: names of its methods that are faults.
        answer: how a row of a journal begins that says that the copy has more.
        outcome: so far.
    """

    faults: Sequence[str] = ()
    answer = b""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.chance = random.Random(seed)
        self.path = directory / "log"
        self.told = Told()
        self.process: asyncio.subprocess.Process | None = None
        self.outcome: Outcome = Outcome()
        self._runs = self._copies = 0
        self._journal = directory / "none"

    def place(self) -> list[str]:
        """Arguments of the writer: where the copy is."""
        raise NotImplementedError

    async def restore(self, target: Path) -> None:
        """Make a log of the copy."""
        raise NotImplementedError

    # ---- the writer

    async def start(self) -> None:
        """Let a process write to the log."""
        self._runs += 1
        self._journal = self.directory / f"journal{self._runs}"
        self.told.begin(self._runs, self._journal)
        with self._words().open("wb") as words:  # no pipe, whose end would have to be waited for, too
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.engines.copied", str(self.path), str(self._journal), str(self._runs)),
                *self.place(),
                stderr=words,
            )
        await self.progress()

    def _words(self) -> Path:
        """The file of the writer's last words."""
        return self._journal.with_suffix(".err")

    def _answers(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self._journal.read_bytes().count(self.answer)
        return 0

    async def progress(self, answers: int = 1) -> None:
        """Wait until the writer was told so many times more that the copy has what it had not."""
        process, target = self.process, self._answers() + answers
        assert process is not None
        await until(lambda: self._answers() >= target or process.returncode is not None, 0.02, PATIENCE)
        if process.returncode is not None:
            self.outcome.errors.append(self._words().read_text()[-2000:])
            raise WriterEnded

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    # ---- copies

    async def copy(self) -> tuple[Path, Copy]:
        """A log made of the copy, held against what was told before it was begun."""
        known = self.told.count()
        self._copies += 1
        target = self.directory / f"copy{self._copies}"
        await self.restore(target)
        found = await copy_in(target)
        self.told.compare(found, self.outcome, known)
        return target, found

    async def look(self) -> None:
        """Make a copy, hold it against what was told, and throw it away."""
        shutil.rmtree((await self.copy())[0])

    async def promote(self) -> None:
        """Go on with a log made of the copy."""
        target, found = await self.copy()
        self.path, self.told = target, Told(found)
        await self.start()

    # ---- faults

    async def killed(self) -> None:
        """SIGKILL of the writer; it goes on with its own files."""
        await self.kill()
        target, found = await self.copy()
        compare_with_whole(found, await copy_in(self.path), self.outcome)
        shutil.rmtree(target)
        await self.start()

    async def disk(self) -> None:
        """SIGKILL of the writer, and its files are gone; a log made of the copy goes on."""
        await self.kill()
        shutil.rmtree(self.path)
        await self.promote()

    async def restore_killed(self, *command: str, environment: dict[str, str] | None = None) -> None:
        """SIGKILL of a restore at any moment, and another one to the same place."""
        target = self.directory / "restoring"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "walsvc.cli", *command, str(target)),
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        files = self.chance.randint(1, 20)
        await until(
            lambda: len(list(target.rglob("*.wal"))) >= files or process.returncode is not None, 0.001, PATIENCE
        )
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if await process.wait():
            await self.restore(target)
        shutil.rmtree(target)

    async def run(self, seconds: float) -> None:
        """Each fault once, then any of them until `seconds` have passed."""
        began, left = time.monotonic(), list(self.faults)
        try:
            await self.start()
            while left or time.monotonic() - began < seconds:
                fault = left.pop(0) if left else self.chance.choice(self.faults)
                await self.progress(self.chance.randint(1, 5))
                await getattr(self, fault)()
                await self.progress()
                await self.look()
                self.outcome.faults[fault] = self.outcome.faults.get(fault, 0) + 1
                print(json.dumps({"fault": fault, **self.outcome.short()}), flush=True)
        except WriterEnded:
            print(json.dumps({"errors": self.outcome.errors}), flush=True)
        finally:
            await self.kill()
            self.outcome.seconds += round(time.monotonic() - began, 1)


def command_line(description: str, run: Callable[[argparse.Namespace], Awaitable[Outcome]]) -> None:
    """Run a campaign, print its outcome, and end with 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    async def main() -> Outcome:
        return await run(options)

    outcome = asyncio.run(main())
    print(json.dumps({"seed": options.seed, **asdict(outcome)}))
    raise SystemExit(outcome.bad > 0)
