"""A checkpointer for LangGraph that keeps its checkpoints in a walsvc log: what `ainvoke` has answered, a power cut cannot take back.

    async with walsvc.open("agent/") as log:
        graph = builder.compile(checkpointer=await LogSaver.on(log))

A journal before the library's own saver in memory: each change is a record, durable before it is made, and is made again at the
start. All threads of all graphs share the syncs. Old threads go with `adelete_thread`, and `log.compact()` gives their space back.
Passes the conformance tests for checkpointers (langgraph-checkpoint-conformance).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver

import walsvc

PUT, WRITES = 0, 1  # types of records


class LogSaver(InMemorySaver):
    """Checkpoints of LangGraph in a log, for its asynchronous calls."""

    def __init__(self, log: walsvc.Log) -> None:
        super().__init__()
        self.log = log

    @classmethod
    async def on(cls, log: walsvc.Log) -> Self:
        """The saver of a log, with what the log holds."""
        saver = cls(log)
        async for record in log.read():
            saver._make(record.type, saver.serde.loads_typed((record.attributes["form"], record.payload)))
        return saver

    def _make(self, kind: int, change: Sequence[Any]) -> RunnableConfig | None:
        return self.put(*change) if kind == PUT else self.put_writes(*change)

    async def _journal(self, kind: int, config: RunnableConfig, *change: Any) -> RunnableConfig | None:
        """Write a change down, then make it. Appends are answered in the order of the log, so it is the same at the next start."""
        own = {"configurable": config["configurable"], "metadata": config.get("metadata", {})}
        form, data = self.serde.dumps_typed([own, *change])
        await self.log.append(data, type=kind, attributes={"thread": own["configurable"]["thread_id"], "form": form})
        return self._make(kind, [config, *change])

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        stored = await self._journal(PUT, config, checkpoint, metadata, new_versions)
        assert stored is not None
        return stored

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._journal(WRITES, config, list(writes), task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await self.log.purge({"thread": thread_id})  # hidden for good, before it is forgotten here
        self.delete_thread(thread_id)
