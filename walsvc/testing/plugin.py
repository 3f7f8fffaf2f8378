"""The pytest plugin: the fixture `power_cuts`, and two options. pytest loads it in every run, so it imports nothing of the log."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from walsvc.testing.cuts import PowerCuts


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of power cuts."""
    group = parser.getgroup("walsvc", "power cuts (walsvc.testing)")
    group.addoption(
        "--power-cut", metavar="NAME", help="try one power cut only, by the name that a failing test reported"
    )
    group.addoption("--power-cut-seeds", metavar="N", type=int, help="try N seeds, whatever the tests say")


@pytest.fixture
def power_cuts(request: pytest.FixtureRequest) -> PowerCuts:
    """Call it as power_cuts(program, check): the program runs on a disk that loses power at every operation."""
    from walsvc.testing.cuts import PowerCuts

    return PowerCuts(
        again=f"pytest {shlex.quote(request.node.nodeid)}",
        only=request.config.getoption("--power-cut"),
        seeds=request.config.getoption("--power-cut-seeds"),
    )
