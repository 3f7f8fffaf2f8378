"""The table of topics: what a writer has after any changes is what its groups, and its snapshots, say."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsvc.format.dedupe import KeyRow, digest_of
from walsvc.format.group import BadGroup
from walsvc.format.meta import KNOWN, Metadata, change_bytes_max, decode_map, departure, encode_map, merge
from walsvc.format.topics import GONE, SPARSE, Topics, count_in, gone_change

NAMES = ("a", "b", "c", "ü" * 100)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.sampled_from((*NAMES, None)), min_size=1, max_size=5)),
        st.tuples(st.just("delete"), st.sampled_from(NAMES)),
        st.tuples(st.just("consumer"), st.sampled_from(NAMES)),
        st.tuples(st.just("truncate"), st.integers(0, 9)),
        st.tuples(st.sampled_from(("group", "segment")), st.none()),
    ),
    max_size=40,
)


class Writer:
    """What a writer does with its metadata, what it says in its groups, and who reads that from the first group on."""

    def __init__(self) -> None:
        self.metadata, self.replayed = Metadata(), Metadata()
        self.model: dict[str, tuple[int, int, int]] = {}  # number, records, LSN of the last
        self.given, self.gone_last, self.next_lsn = 0, 0, 1
        self.joined: dict = {}
        self.column: list[int] = []

    def join(self, change) -> None:
        room, before = change_bytes_max(change, self.joined), len(encode_map(self.joined))
        self.metadata.apply(change)
        merge(self.joined, change)
        assert len(encode_map(self.joined)) - before <= room

    def number(self, name) -> int:
        if name is None:
            return 0
        if name not in self.model:
            self.given += 1
            self.join({"topics": {name: self.given}})
            self.model[name] = (self.given, 0, 0)
        return self.model[name][0]

    def append(self, names) -> None:
        for name in names:
            self.column.append(self.number(name))
            if name is not None:
                number, count, _ = self.model[name]
                self.model[name] = (number, count + 1, self.next_lsn)
            self.next_lsn += 1

    def delete(self, name) -> None:
        if name in self.model:
            number, _, last = self.model.pop(name)
            self.join(departure(self.metadata, [number]))
            self.gone_last = max(self.gone_last, last)
            self.forget_gone(self.metadata.truncated)

    def consumer(self, name) -> None:
        number = self.number(name)
        self.join({"positions": {f"{number}/c": 1}, "purges": {f'{number}/{{"key":"k"}}': self.next_lsn}})
        row = KeyRow(self.next_lsn, 1, 0, 1, 0, 1)
        merge(self.joined, {"!dedupe": self.metadata.keys.note(number, digest_of("k"), row)})

    def truncate(self, share) -> None:
        self.group(None)
        lsn = max(self.metadata.truncated, self.next_lsn * share // 10)
        for metadata in (self.metadata, self.replayed):
            metadata.apply({"truncated": lsn})
        self.forget_gone(lsn)

    def forget_gone(self, truncated) -> None:
        self.gone_last = 0 if self.gone_last < truncated else self.gone_last

    def group(self, _) -> None:
        first = self.next_lsn - len(self.column)
        self.replayed.apply(decode_map(encode_map(self.joined)))
        if any(self.column):
            for metadata in (self.metadata, self.replayed):
                metadata.topics.count(first, array("I", self.column))
        self.joined, self.column = {}, []
        self.check(self.metadata)
        self.check(self.replayed)

    def segment(self, _) -> None:
        self.group(None)
        self.metadata.topics.fold()
        snapshot = self.metadata.snapshot()
        assert len(snapshot) <= self.metadata.snapshot_bytes_max
        said = decode_map(snapshot)
        assert (SPARSE in said) == (len(self.model) < self.given)
        assert not ({"numbers", "given", "gone"} & said.keys() and SPARSE not in said)
        for number, count, _ in self.model.values():
            assert count_in(said, number) == count
        assert count_in(said, self.given + 1) == 0
        self.replayed = Metadata()
        self.replayed.apply(said, snapshot=True)
        self.check(self.replayed)

    def check(self, metadata) -> None:
        topics = metadata.topics
        assert {name: (topics.get(name), *topics.sums_of(topics.get(name))) for name in topics} == self.model
        assert list(topics) == sorted(self.model, key=lambda name: self.model[name][0])
        assert (topics.given, topics.gone, topics.gone_last) == (
            self.given,
            self.given - len(self.model),
            self.gone_last,
        )
        numbers = {number for number, *_ in self.model.values()}
        assert topics.gone_of(range(self.given + 1)) == set(range(1, self.given + 1)) - numbers
        assert {int(key.partition("/")[0]) for key in (*metadata.positions, *metadata.purges)} <= numbers
        assert all(
            not metadata.keys.remembers(number, 1) for number in range(1, self.given + 1) if number not in numbers
        )
        assert topics == topics.copy()


@given(steps)
def test_changes_one_by_one_merged_and_from_a_snapshot_give_the_same_topics(given_steps):
    writer = Writer()
    for kind, argument in given_steps:
        getattr(writer, kind)(argument)
    writer.segment(None)


def test_without_a_topic_that_has_gone_the_keys_are_those_of_every_version():
    metadata = Metadata()
    metadata.apply({"topics": {"a": 1, "b": 2}})
    metadata.topics.count(1, array("I", [1, 2, 0, 2]))
    metadata.topics.fold()
    assert decode_map(metadata.snapshot()) == {
        "topics": {"a": 1, "b": 2},
        "truncated": 1,
        "sealed": False,
        "counts": bytes([1, *bytes(7), 2, *bytes(7)]),
        "lasts": bytes([1, *bytes(7), 4, *bytes(7)]),
    }
    metadata.apply(gone_change([1]))
    assert decode_map(metadata.snapshot()) == {
        SPARSE: ["b"],
        "numbers": bytes([2, 0, 0, 0]),
        "given": 2,
        "gone": 1,
        "truncated": 1,
        "sealed": False,
        "counts": bytes([2, *bytes(7)]),
        "lasts": bytes([4, *bytes(7)]),
    }
    metadata.apply(gone_change([2]))
    assert decode_map(metadata.snapshot())["given"] == 2, "numbers are never given twice, not even when all have gone"


def test_a_version_that_takes_numbers_as_dense_refuses_a_log_in_which_a_topic_has_gone():
    """All that is new is under a required key, or beside one in the same map."""
    metadata = Metadata()
    metadata.apply({"topics": {"a": 1, "b": 2}})
    assert not [key for key in decode_map(metadata.snapshot()) if key.startswith("!")]
    change = departure(metadata, [1])
    metadata.apply(change)
    for said in (change, decode_map(metadata.snapshot())):
        assert {GONE, SPARSE} & said.keys()
    assert {GONE, SPARSE} < KNOWN


@pytest.mark.parametrize(
    ("made", "gone"),
    [({"c": 4}, []), ({"c": 2}, []), ({"a": 3}, []), ({}, [4]), ({"c": 4}, [5]), ({"c": 3}, [5])],
)
def test_numbers_that_cannot_be_are_damage(made, gone):
    topics = Topics()
    topics.change({"a": 1, "b": 2}, [])
    with pytest.raises(BadGroup):
        topics.change(made, gone)


@pytest.mark.parametrize(
    "snapshot",
    [
        {SPARSE: ["a"], "numbers": b"\2\0\0", "given": 2},
        {SPARSE: ["a"], "numbers": b"\2\0\0\0", "given": 1},
        {SPARSE: ["a", "b"], "numbers": b"\2\0\0\0", "given": 2},
        {SPARSE: ["a", "b"], "numbers": b"\2\0\0\0\1\0\0\0", "given": 3},
        {SPARSE: ["a"], "numbers": b"\0\0\0\0", "given": 3},
        {SPARSE: [], "given": 3, "counts": bytes(8)},
        {"topics": {"a": 1}, "counts": bytes(16)},
        {"topics": {"a": 1}, "counts": bytes(7)},
    ],
)
def test_a_snapshot_that_does_not_fit_itself_is_damage(snapshot):
    with pytest.raises(BadGroup):
        Metadata().apply(snapshot, snapshot=True)


def test_a_record_of_a_number_that_was_never_given_is_damage():
    topics = Topics()
    topics.change({"a": 1}, [])
    topics.change({}, [1])
    topics.count(1, array("I", [1, 0]))  # it has gone, and its records are still there
    with pytest.raises(BadGroup):
        topics.count(3, array("I", [2]))


def test_what_had_gone_before_a_truncation_hides_nothing_after_it():
    metadata = Metadata()
    metadata.apply({"topics": {"a": 1}})
    metadata.topics.count(1, array("I", [1, 1]))
    metadata.apply(gone_change([1]))
    metadata.apply({"truncated": 2})
    assert metadata.topics.gone_last == 2
    metadata.apply({"truncated": 3})
    assert metadata.topics.gone_last == 0
