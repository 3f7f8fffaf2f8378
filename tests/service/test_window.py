"""Credit, on both sides: no byte of it is lost and none is made, whatever is sent and taken in whatever order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from walsvc.service.wire.window import Window

COST = st.integers(1, 400)


def test_anything_may_be_sent_where_nothing_is_under_way() -> None:
    window = Window(100)
    assert window.fits(1000)
    window.take(60)
    assert (window.fits(40), window.fits(41), window.left) == (True, False, 40)
    window.take(1000)
    assert window.left < 0
    window.give(1060)
    assert (window.left, window.used) == (100, 0)


def test_credit_is_given_back_in_halves() -> None:
    window = Window(100)
    window.take(100)
    assert [window.taken(20) for _ in range(5)] == [0, 0, 60, 0, 0]
    assert (window.owed, window.renewed(), window.owed) == (40, 100, 0)
    window.take(150)
    assert window.renewed() == 1, "a stream that begins anew must have some"


@given(st.integers(1, 1000), st.lists(st.tuples(st.booleans(), COST), max_size=60))
@settings(max_examples=100, deadline=None)
def test_sender_and_receiver_agree(size: int, steps: list[tuple[bool, int]]) -> None:
    """The sender sends while it has credit, the receiver takes when it likes; a sender that waits always hears of more in the end."""
    sender, receiver, under_way = Window(size), Window(size), list[int]()
    for sends, cost in steps:
        if sends and sender.left > 0:
            sender.take(cost)
            receiver.take(cost)
            under_way.append(cost)
        elif not sends and under_way:
            sender.give(receiver.taken(under_way.pop(0)))
        assert sender.used == receiver.used + receiver.owed
        assert receiver.owed * 2 < size
    for cost in under_way:
        sender.give(receiver.taken(cost))
    assert receiver.used == 0
    assert sender.left > size // 2 or sender.left == size
