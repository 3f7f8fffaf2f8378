"""The contract of a log, on every log that there is."""

from __future__ import annotations

import pytest

from tests.contract.openers import Opener, opener_on, parametrize

pytest_generate_tests = parametrize


@pytest.fixture
def open_log(request, tmp_path) -> Opener:
    """Opens the same log again and again."""
    return opener_on(request.param, tmp_path)


@pytest.fixture
def open_sim(tmp_path) -> Opener:
    """The same on the simulated disk only, for what does not depend on the disk."""
    return opener_on("sim", tmp_path)
