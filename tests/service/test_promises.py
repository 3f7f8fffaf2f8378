"""The measurements of tests.service.promises measure something: one of them here, as its command line runs it."""

from __future__ import annotations

from tests.service.promises import PROMISES, promise


async def test_a_promise_is_measured_and_told_with_what_was_asked(capsys) -> None:
    assert all((measure.__doc__ or "").startswith(f"{number}. ") for number, measure in PROMISES.items())
    await promise(8)
    assert capsys.readouterr().out.splitlines() == [
        "8. streams=2 admitted 50 consumers sent in one write.",
        "    -> 2 are admitted, 48 get Backpressure",
    ]
