"""A short run of fresh inputs; `python -m tests.redis.fuzz` is the campaign."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.redis.fuzz import campaign


@pytest.mark.parametrize("strangers", [False, True], ids=["anybody", "strangers"])
async def test_any_bytes_end_with_their_connection(tmp_path: Path, strangers: bool) -> None:
    assert await campaign(300, random.SystemRandom().randrange(1 << 32), tmp_path, strangers=strangers)
