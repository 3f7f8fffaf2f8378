"""A log on each kind of disk, and elsewhere, opened again and again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.openers import Opener, opener_on, parametrize

pytest_generate_tests = parametrize


@pytest.fixture
def open_log(request, tmp_path) -> Opener:
    """Opens the same log again and again, with segments of 64 KiB."""
    return opener_on(request.param, tmp_path)


@pytest.fixture
def open_sim(tmp_path) -> Opener:
    """The same on the simulated disk only, for what does not depend on the disk."""
    return opener_on("sim", tmp_path)


async def lsns(records: Any) -> list[int]:
    """LSNs of what an asynchronous iterator of records gives."""
    return [record.lsn async for record in records]
