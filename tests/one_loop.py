"""Tests that run on asyncio only, since they take long and what they test does not depend on the loop."""

from __future__ import annotations

from pathlib import Path

import pytest


def on_asyncio_only(config: pytest.Config, items: list[pytest.Item], directory: Path, *kind: str) -> None:
    """Deselect what would run on uvloop among the tests below `directory` (of one kind of log, where it is named)."""
    unwanted = {"uvloop", *kind}
    spared = {
        each.nodeid
        for each in items
        if directory in each.path.parents and unwanted <= set(each.name.partition("[")[2].rstrip("]").split("-"))
    }
    config.hook.pytest_deselected(items=[each for each in items if each.nodeid in spared])
    items[:] = [each for each in items if each.nodeid not in spared]
