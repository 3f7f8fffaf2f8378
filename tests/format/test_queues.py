"""What is remembered of consumers above their positions, against sets of LSNs."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsvc.format.group import BadGroup
from walsvc.format.meta import Metadata, change_bytes_max, decode_map, encode_map, merge
from walsvc.format.queues import KEY, ConsumerWindow, Held, done_row, held_row, moved_row, tried_row

KEYS = ["1/workers", "1/others"]
LSNS = st.integers(1, 40)
done = st.tuples(LSNS, st.integers(0, 6)).map(lambda pair: ("done", pair[0], pair[0] + pair[1]))
other = st.one_of(
    st.tuples(st.just("moved"), LSNS),
    st.tuples(st.just("tried"), LSNS, st.integers(1, 1 << 33)),
    st.tuples(st.just("held"), LSNS, st.sampled_from(["w1", "größer"])),
    st.tuples(st.just("position"), LSNS),
    st.tuples(st.just("options"), st.sampled_from([{"lease": 30.0}, {"lease": None, "dead_letter": "d"}])),
    st.just(("deleted",)),
)
steps = st.lists(st.tuples(st.sampled_from(KEYS), st.one_of(done, done, done, other), st.booleans()), max_size=40)


class Model:
    """A consumer as sets."""

    def __init__(self) -> None:
        self.position, self.done, self.tried, self.held, self.options = 1, set(), {}, {}, {}

    def settle(self) -> None:
        while self.position in self.done:
            self.position += 1
        self.done = {lsn for lsn in self.done if lsn > self.position}
        for state in (self.tried, self.held):
            for lsn in [each for each in state if each in self.done or each < self.position]:
                del state[lsn]


def change_of(key, step, model):
    """The change of metadata that a step is, and the step in the model."""
    kind = step[0]
    if kind == "done":
        model.done |= {lsn for lsn in range(step[1], step[2] + 1) if lsn >= model.position}
        row = done_row(step[1], step[2], 1)
    elif kind == "moved":
        model.position, model.done, model.tried, model.held = step[1], set(), {}, {}
        return {KEY: {key: {"rows": moved_row(step[1])}}}
    elif kind == "tried":
        model.held.pop(step[1], None)
        model.tried[step[1]] = step[2]
        model.settle()
        return {KEY: {key: {"rows": tried_row(step[1], step[2])}}}
    elif kind == "held":
        model.tried.pop(step[1], None)
        held = model.held[step[1]] = Held(3, step[2], 1_700_000_000_000)
        model.settle()
        return {KEY: {key: {"rows": held_row(step[1], held)}}}
    elif kind == "options":
        model.options = step[1]
        return {KEY: {key: {"options": step[1], "rows": b""}}}
    else:
        raise AssertionError(kind)
    model.settle()
    return {KEY: {key: {"rows": row}}}


def same(metadata, models):
    for key, model in models.items():
        window = metadata.queues.get(key) or ConsumerWindow()
        assert metadata.positions.get(key, 1) == model.position
        assert {lsn for lsn in range(60) if window.covers(lsn)} == model.done
        assert (window.tried, window.held, window.options) == (model.tried, model.held, model.options)
        assert all(last + 1 < first for last, first in zip(window.lasts, window.firsts[1:], strict=False))


def add(metadata, joined, change):
    """Let a change join a group, which grows by no more than is kept for it."""
    room, before = change_bytes_max(change, joined), len(encode_map(joined))
    metadata.apply(change)
    merge(joined, change)
    assert len(encode_map(joined)) - before <= room


@given(steps)
def test_changes_one_by_one_merged_and_from_a_snapshot_give_the_state_that_sets_give(given_steps):
    metadata, replayed, models, joined = Metadata(), Metadata(), {key: Model() for key in KEYS}, {}
    for key, step, group_ends in given_steps:
        if step[0] == "deleted":
            models[key] = Model()
            change = {"positions": {key: None}, KEY: {key: None}}
            made = {"positions": {key: 1}, KEY: {key: {"options": {}, "rows": moved_row(1)}}}
            add(metadata, joined, change)
            change = made
        elif step[0] == "position":  # what retention writes, in a group of its own
            if step[1] < models[key].position:
                continue
            replayed.apply(decode_map(encode_map(joined)))
            models[key].position, joined = step[1], {"positions": {key: step[1]}}
            models[key].settle()
            metadata.apply(joined)
            replayed.apply(decode_map(encode_map(joined)))
            joined = {}
            same(metadata, models)
            continue
        else:
            change = change_of(key, step, models[key])
        add(metadata, joined, change)
        same(metadata, models)
        if group_ends:
            replayed.apply(decode_map(encode_map(joined)))
            joined = {}
            same(replayed, models)
    replayed.apply(decode_map(encode_map(joined)))
    same(replayed, models)
    snapshot = metadata.snapshot()
    assert len(snapshot) <= metadata.snapshot_bytes_max
    opened = Metadata()
    opened.apply(decode_map(snapshot), snapshot=True)
    for key, model in models.items():
        opened.positions.setdefault(key, model.position)
    same(opened, models)
    same(metadata.copy(), models)


@given(steps, LSNS)
def test_a_cut_log_forgets_what_is_beyond_its_end(given_steps, end):
    window, model = ConsumerWindow(), Model()
    position = 1
    for _, step, _ in given_steps:
        if step[0] in ("done", "tried", "held"):
            change = change_of(KEYS[0], step, model)
            position = window.apply(change[KEY][KEYS[0]]["rows"], position)
    window.cut(end)
    assert {lsn for lsn in range(60) if window.covers(lsn)} == {lsn for lsn in model.done if lsn <= end}
    assert set(window.tried) == {lsn for lsn in model.tried if lsn <= end}
    assert set(window.held) == {lsn for lsn in model.held if lsn <= end}
    assert len(window.rows()) <= window.rows_bytes


def test_ranges_count_the_records_and_not_the_lsns():
    window, position = ConsumerWindow(), 1
    for row in (done_row(4, 6, 1), done_row(7, 12, 1), done_row(20, 25, 1)):
        position = window.apply(row, position)
    assert (position, window.firsts, window.lasts, window.records) == (1, [4, 20], [12, 25], [2, 1])
    assert window.spans(5, 12)
    assert not window.spans(5, 13)
    assert window.apply(done_row(1, 3, 1), position) == 13


def test_an_older_writer_refuses_the_state_that_it_would_drop():
    assert KEY.startswith("!")


@pytest.mark.parametrize(
    "rows",
    [
        done_row(4, 6, 1)[:-1],
        msgpack.packb([7, 1]),
        msgpack.packb([1, 4, 6]),
        msgpack.packb("text"),
        msgpack.packb([3, 4, 1, 5, 6])[:-1],
        b"\xc1",
        msgpack.packb([]),
    ],
)
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(BadGroup):
        ConsumerWindow().apply(rows, 1)
    with pytest.raises(BadGroup):
        Metadata().apply({KEY: {"1/a": {"rows": rows}}})


def test_a_state_that_is_no_map_is_refused():
    with pytest.raises(BadGroup):
        Metadata().apply({KEY: [1]})
