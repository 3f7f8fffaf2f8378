r"""Patterns of names: what Redis 7.0's KEYS answered for each of them."""

from __future__ import annotations

import pytest

from walsvc.service.fronts.redis.globs import glob


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        (b"*", b"", True),
        (b"a*c", b"abbc", True),
        (b"a*c", b"abbcd", False),
        (b"a**c", b"ac", True),
        (b"*b*b*", b"ab", False),
        (b"*b*b*", b"abab", True),
        (b"a?c", b"abc", True),
        (b"a?c", b"ac", False),
        (b"a[xy]c", b"ayc", True),
        (b"a[^xy]c", b"ayc", False),
        (b"a[x-z]c", b"ayc", True),
        (b"a[z-x]c", b"ayc", True),
        (b"a[\\]]c", b"a]c", True),
        (b"a\\*c", b"a*c", True),
        (b"a\\*c", b"abc", False),
        (b"a[xy", b"ax", True),
        (b"*.log\n", b"x.log\n", True),
        (b"*aab", b"aaab", True),
    ],
)
def test_pattern_fits_what_it_fits_in_redis(pattern: bytes, name: bytes, fits: bool) -> None:
    assert bool(glob(pattern).fullmatch(name)) == fits


def test_many_stars_take_no_time() -> None:
    assert glob(b"*a" * 100 + b"b").fullmatch(b"a" * 255) is None
