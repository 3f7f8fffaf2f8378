"""Batches: the tasks of the batches that are being streamed, for those who end the log. Loop thread only."""

from __future__ import annotations

import asyncio

from walsvc.log.commit.results import BatchResult

BatchTask = asyncio.Task[BatchResult]


class Batches:
    """The batches of one log that are being streamed. One has the log, the others wait for their turns."""

    def __init__(self) -> None:
        self._under_way: set[BatchTask] = set()
        self._drawing: set[BatchTask] = set()  # those whose asynchronous source has not ended, and may never

    def add(self, task: BatchTask, *, drawing: bool) -> None:
        """Take note of a batch until it has ended; `drawing`: from an asynchronous source."""
        for tasks in (self._under_way, self._drawing) if drawing else (self._under_way,):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def drawn(self) -> None:
        """Take note that the source of the calling task's batch has ended."""
        self._drawing.discard(_calling())

    @property
    def draws(self) -> bool:
        """True if the asynchronous source of the calling task's batch has not ended."""
        return _calling() in self._drawing

    def of_others(self) -> list[BatchTask]:
        """The tasks but the one that asks, which may be the source of its own batch."""
        return list(self._under_way - {_calling()})

    def give_up_drawing(self) -> None:
        """Cancel the batches whose source has not ended, because the log is being closed."""
        for task in list(self._drawing):
            task.cancel()


def _calling() -> BatchTask:
    task = asyncio.current_task()
    assert task is not None
    return task
