"""The checkpointer of examples/langgraph_saver.py passes LangGraph's conformance tests, before and after a restart."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.forked import ROOT
from tests.installed import needs

needs("langgraph.checkpoint.conformance")


@pytest.fixture(name="saver_on")
def fixture_saver_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[walsvc.Log], Awaitable[Any]]:
    """Opens the example's checkpointer."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    from langgraph_saver import LogSaver

    return LogSaver.on


async def test_it_passes_the_conformance_tests(saver_on) -> None:
    from langgraph.checkpoint import conformance

    @conformance.checkpointer_test(name="walsvc")
    async def saver():
        with tempfile.TemporaryDirectory() as directory:
            async with walsvc.open(directory) as log:
                yield await saver_on(log)

    report = await conformance.validate(saver)
    assert report.passed_all_base(), report.to_dict()


async def test_a_thread_that_was_deleted_stays_so_and_gives_its_space_back(tmp_path: Path, saver_on) -> None:
    from langgraph.checkpoint.base import empty_checkpoint

    async with walsvc.open(tmp_path) as log:
        saver = await saver_on(log)
        for thread in ("a", "b"):
            config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
            await saver.aput(config, empty_checkpoint(), {"source": "input", "step": 1}, {})
        await saver.adelete_thread("a")
    async with walsvc.open(tmp_path) as log:
        saver = await saver_on(log)
        found = [each.config["configurable"]["thread_id"] async for each in saver.alist(None)]
    assert found == ["b"]
