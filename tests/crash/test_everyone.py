"""A sample of the campaign in tests/crash/everyone.py, the same each time; and what its promises notice."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from .calls import Promises, Wrong
from .everyone import Everyone


@pytest.mark.parametrize("hard", [False, True])
def test_all_calls_beside_each_other_are_answered_and_lose_nothing(hard: bool) -> None:
    for seed in (*range(100_032, 100_040), 500_198):
        Everyone(seed, hard=hard).run()


def kept() -> Promises:
    promises = Promises(lossy=False)
    with promises.noting() as note:
        for lsn in range(1, 11):
            note(SimpleNamespace(lsn=lsn, durable=lsn != 4), b"%d" % lsn)
    return promises


ALL = {lsn: b"%d" % lsn for lsn in range(1, 11)}


def test_promises_are_kept_by_all_records_and_by_those_that_nobody_dropped() -> None:
    promises = kept()
    promises.check(1, ALL)
    promises.check(1, {lsn: payload for lsn, payload in ALL.items() if lsn != 4})
    promises.truncate_before(3)
    promises.truncate_after(8)
    promises.check(3, {lsn: payload for lsn, payload in ALL.items() if 3 <= lsn <= 8} | {9: b"new"})


@pytest.mark.parametrize("change", [{7: b"other"}, {7: None}, {10: None}, {1: None}])
def test_record_that_is_missing_or_another_one_breaks_a_promise(change: dict[int, bytes | None]) -> None:
    found = {lsn: payload for lsn, payload in {**ALL, **change}.items() if payload is not None}
    with pytest.raises(Wrong, match=f"LSN {next(iter(change))} "):
        kept().check(min(found), found)


def test_what_is_answered_after_the_end_was_cut_promises_nothing() -> None:
    promises = kept()
    with promises.noting() as note:
        promises.truncate_after(5)
        note(SimpleNamespace(lsn=6, durable=True), b"old")
    promises.check(1, {lsn: payload for lsn, payload in ALL.items() if lsn <= 5})
