"""A bounded share of the exploration: with that of logs with a double-write file and of encrypted ones at least 20,000 distinct
crash states from 2,000 crash points, 200 of them during recovery; one in ten is also written on, all of them in `make soak`. `python -m tests.crash.explore` goes on without end, with longer lives, and
writes on in all."""

from __future__ import annotations

from contextlib import closing

import pytest

from .explorer import Effort, Explorer, replay_command
from .sampling import WHOLE

BLOCKS = 8
STATES = 2_200
POINTS = 250
RECOVERY_POINTS = 25
WRITTEN_ON = 1.0 if WHOLE else 0.1  # share of the states


@pytest.mark.parametrize("block", range(BLOCKS))
def test_power_cut_at_every_operation_keeps_what_was_acknowledged(block: int) -> None:
    seed = block * 1_000
    lives, steps = (3, 15) if block % 4 == 0 else (2, 8)  # long histories are dear, short ones are of more logs
    with closing(Explorer(Effort(lives=lives, steps=steps, recovery_share=0.02, go_on_share=WRITTEN_ON))) as explorer:
        tally = explorer.tally

        def enough() -> bool:
            return len(tally.states) >= STATES and tally.points >= POINTS and tally.recovery_points >= RECOVERY_POINTS

        while not enough():
            try:
                explorer.explore(seed, enough)
            except BaseException as error:
                error.add_note(f"replay: {replay_command(seed)}")
                raise
            seed += 1
    print(tally)
    assert len(tally.states) >= STATES
    assert tally.points >= POINTS
    assert tally.recovery_points >= RECOVERY_POINTS


def test_same_seed_explores_the_same_states() -> None:
    tallies = []
    for _ in range(2):
        with closing(Explorer(Effort(lives=2, steps=6, states=3))) as explorer:
            explorer.explore(77)
            tallies.append(explorer.tally)
    assert len(tallies[0].states) > 50
    assert tallies[0] == tallies[1]
