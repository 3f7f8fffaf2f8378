"""The short way of an append: both twins do the same for the same calls."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from walsvc.log.commit import ack, lane
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import NO_TYPE
from walsvc.model import Quorum, Relaxed, Strict

RECORD_BYTES_MAX, RECORDS_MAX, LENGTH_BYTES = 50, 12, 4
compiled_module = ack.extension("_intake")
TWINS = {"python": lane.PythonLane}
if compiled_module is not None:
    TWINS["c"] = compiled_module.Lane


class Interrupted(BaseException):
    """What a signal handler raises."""


def scene(twin: Any) -> Any:
    """A lane of that kind with a group of its own, which notes every call that it makes."""

    class Scene(twin):
        def __init__(self) -> None:
            self.calls: list[Any] = []
            self.acks = 0
            self.raising: dict[str, BaseException] = {}
            super().__init__(
                new_ack=self.made,
                accepted=lambda *numbers: self.note("accepted", *numbers),
                check=lambda: self.note("check"),
                wake=lambda: self.note("wake"),
                arm=lambda: self.note("arm"),
                slow=lambda *arguments: self.note("slow", *arguments),
                record_bytes_max=RECORD_BYTES_MAX,
                records_max=RECORDS_MAX,
                length_bytes=LENGTH_BYTES,
            )
            self.begin()

        def begin(self) -> None:
            self.group: tuple[list[Any], list[Any], dict[int, Any]] = ([], [], {})
            self.fill(*self.group, frozenset({1, 2}), 7, 3, 4096)

        def note(self, *call: Any) -> Any:
            self.calls.append(call)
            if call[0] in self.raising:
                raise self.raising.pop(call[0])
            return call

        def made(self) -> str:
            self.acks += 1
            return f"ack {self.acks}"

        def mend(self) -> None:
            self.note("mend")

        @property
        def state(self) -> Any:
            return (
                self.calls,
                self.group,
                self.room,
                self.limit,
                self.cost,
                bool(self.wanted),
                bool(self.armed),
                self.acks,
            )

    return Scene()


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except BaseException as error:
        return type(error)


PAYLOADS = [
    b"",
    b"x",
    bytes(RECORD_BYTES_MAX),
    bytes(RECORD_BYTES_MAX + 1),
    bytearray(b"ab"),
    memoryview(b"abc"),
    "text",
    None,
]
LABELS = [None, Labels(topic=1), Labels(topic=2), Labels(topic=3)]


def step(chance: random.Random) -> Callable[[Any], Any]:
    """A random thing to do with a lane."""
    payload = chance.choice(PAYLOADS[:3] * 3 + PAYLOADS)
    match chance.randrange(13):
        case 0 | 1:
            room = chance.choice([-1, 0, 3, 4, 5, 54, 1000])
            return lambda each: setattr(each, "room", room)
        case 2:
            cost = chance.choice([LENGTH_BYTES, 14])
            return lambda each: setattr(each, "cost", cost)
        case 3:
            return lambda each: each.begin()
        case 4:
            return lambda each: setattr(each, "wanted", False)
        case 5:
            what, error = (
                chance.choice(["check", "wake", "slow", "arm", "accepted"]),
                chance.choice([ValueError, Interrupted]),
            )
            return lambda each: each.raising.update({what: error()})
        case 6:
            mode, kind, attributes = (
                chance.choice([Strict, Relaxed]),
                chance.choice([0, 7, False]),
                chance.choice([None, {}]),
            )
            return lambda each: each.append(payload, mode, kind, attributes)
        case 7:
            words = chance.choice(
                [
                    {"mode": Strict},
                    {"mode": Relaxed},
                    {"type": 0},
                    {"expected": None},
                    {"expected": 0},
                    {"dedupe": None},
                    {"dedupe": "k"},
                    {"attributes": {"a": 1}},
                    {"modus": 1},
                    {"payload": b"y"},
                ]
            )
            return lambda each: each.append(payload, **words)
        case 8:
            labels = chance.choice(LABELS)
            mode = chance.choice([Strict, Relaxed, Quorum])
            return lambda each: each.append_labelled(
                payload, labels, "topic", mode, 0 if labels is None else labels.type
            )
        case 9:
            return lambda each: each.append(payload, Relaxed)
        case 10:
            armed = chance.choice([True, False])
            return lambda each: setattr(each, "armed", armed)
        case _:
            return lambda each: each.append(payload)


@pytest.mark.skipif(compiled_module is None, reason="walsvc was installed without a C compiler")
def test_both_twins_do_the_same_for_random_calls():
    for seed in range(300):
        chance = random.Random(seed)
        python, c = scene(TWINS["python"]), scene(TWINS["c"])
        for number in range(60):
            act = step(chance)
            answers = outcome(lambda: act(python)), outcome(lambda: act(c))  # noqa: B023
            assert answers[0] == answers[1], (seed, number)
            assert python.state == c.state, (seed, number)
            assert len(c.group[0]) == len(c.group[1]), (seed, number)


@pytest.fixture(params=TWINS)
def way(request: pytest.FixtureRequest) -> Any:
    each = scene(TWINS[request.param])
    each.room = each.limit = 1000
    return each


def test_plain_record_goes_into_the_group_and_wakes_once(way):
    assert [way.append(b"one"), way.append(b"two", mode=Strict)] == ["ack 1", "ack 2"]
    assert way.group == ([b"one", b"two"], ["ack 1", "ack 2"], {})
    assert way.calls == [("check",), ("wake",)]
    assert way.room == 1000 - 6 - 2 * LENGTH_BYTES


def test_everything_else_is_handed_on_once_as_it_came(way):
    assert way.append(b"x", Relaxed, 3, {"a": 1}) == ("slow", b"x", Relaxed, 3, {"a": 1}, None, None, None)
    assert way.append(b"x", expected=7) == ("slow", b"x", Strict, NO_TYPE, None, None, 7, None)
    assert way.append(b"x", dedupe="k") == ("slow", b"x", Strict, NO_TYPE, None, None, None, "k")
    assert way.append(bytearray(b"x"))[1:] == (bytearray(b"x"), Strict, NO_TYPE, None, None, None, None)
    assert way.append_labelled(b"x", None, "topic", Strict, 7)[1:] == (b"x", Strict, 7, None, "topic", None, None)
    way.room = -1
    assert way.append(b"x")[0] == "slow"
    assert way.group == ([], [], {})


def test_record_of_a_known_topic(way):
    way.cost = 14
    assert way.append_labelled(b"x", Labels(topic=2), "topic", Strict, NO_TYPE) == "ack 1"
    assert way.group == ([b"x"], ["ack 1"], {0: Labels(topic=2)})
    assert way.append_labelled(b"x", Labels(topic=3), "topic", Strict, NO_TYPE)[0] == "slow"


def test_other_thread_takes_the_long_way(way):
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(way.append(b"x")))
    thread.start()
    thread.join()
    assert answers[0][0] == "slow"
    assert way.group[0] == []


def test_exception_out_of_the_wake_up_leaves_a_whole_record(way):
    way.raising["wake"] = Interrupted()
    with pytest.raises(Interrupted):
        way.append(b"x")
    assert way.group == ([b"x"], ["ack 1"], {})
    assert way.calls[-1] == ("mend",)


def test_group_that_is_exchanged_while_the_loop_is_checked_gets_the_record(way):
    full = way.group

    def exchange(*call: Any) -> None:
        way.begin()
        way.wanted = True

    way.note = exchange
    way.append(b"x")
    assert full[0] == []
    assert way.group[0] == [b"x"]


def test_relaxed_record_is_answered_at_once_and_arms_until_somebody_waits(way):
    assert way.append(b"one", Relaxed) == ("accepted", 7, 3, 4096, 3)
    assert way.append(b"four", mode=Relaxed) == ("accepted", 8, 3, 4099, 4)
    assert way.group == ([b"one", b"four"], [None, None], {})
    assert [call for call in way.calls if call[0] == "arm"] == [("arm",), ("arm",)]
    way.armed = True
    way.append(b"x", Relaxed)
    way.armed = False
    assert way.append(b"x") == "ack 1"
    way.append(b"x", Relaxed)
    assert [call for call in way.calls if call[0] in {"arm", "wake"}] == [("arm",), ("arm",), ("wake",)]


def test_relaxed_record_of_a_known_topic(way):
    way.cost = 14
    assert way.append_labelled(b"x", Labels(topic=2), "topic", Relaxed, NO_TYPE) == ("accepted", 7, 3, 4096, 1)
    assert way.group == ([b"x"], [None], {0: Labels(topic=2)})


def test_relaxed_record_is_answered_for_the_place_that_it_gets(way):
    """An append from inside the making of the answer, as the garbage collector may cause one, comes first."""
    note = way.note

    def another(*call: Any) -> Any:
        way.note = note
        way.append(b"in between", Relaxed)
        return note(*call)

    way.note = another
    way.armed = way.wanted = True
    assert way.append(b"x", Relaxed) == ("slow", b"x", Relaxed, NO_TYPE, None, None, None, None)
    assert way.group[0] == [b"in between"]


def test_exception_out_of_arming_leaves_a_whole_record(way):
    way.raising["arm"] = Interrupted()
    with pytest.raises(Interrupted):
        way.append(b"x", Relaxed)
    assert way.group == ([b"x"], [None], {})
    assert way.calls[-1] == ("mend",)
