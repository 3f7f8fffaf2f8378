"""The checkpointer of examples/langgraph_saver.py passes LangGraph's conformance tests, before and after a restart."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

import walsvc
from tests.forked import ROOT

pytest.importorskip("langgraph.checkpoint.conformance", reason="not installed (walsvc[dev])")
sys.path.insert(0, str(ROOT / "examples"))

from langgraph.checkpoint import conformance
from langgraph.checkpoint.base import empty_checkpoint
from langgraph_saver import LogSaver


async def test_it_passes_the_conformance_tests() -> None:
    @conformance.checkpointer_test(name="walsvc")
    async def saver():
        with tempfile.TemporaryDirectory() as directory:
            async with walsvc.open(directory) as log:
                yield await LogSaver.on(log)

    report = await conformance.validate(saver)
    assert report.passed_all_base(), report.to_dict()


async def test_a_thread_that_was_deleted_stays_so_and_gives_its_space_back(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path) as log:
        saver = await LogSaver.on(log)
        for thread in ("a", "b"):
            config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
            await saver.aput(config, empty_checkpoint(), {"source": "input", "step": 1}, {})
        await saver.adelete_thread("a")
    async with walsvc.open(tmp_path) as log:
        saver = await LogSaver.on(log)
        found = [each.config["configurable"]["thread_id"] async for each in saver.alist(None)]
    assert found == ["b"]
