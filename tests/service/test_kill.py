"""A small run of the campaign in tests/service/campaign.py: processes of clients, and a server process that is killed."""

from __future__ import annotations

import asyncio

from tests.service.campaign import campaign


def test_clients_of_a_server_that_is_killed_lose_and_repeat_nothing():
    outcome = asyncio.run(campaign(connections=40, processes=2, kills=2, tasks=3, records_between=600))
    assert outcome.bad == 0, str(outcome)
    assert outcome.unknown == 0, str(outcome)
    assert outcome.kills == 2
    assert outcome.acked > 1000
    assert outcome.reconnected > 0
    assert outcome.repeated > 0
