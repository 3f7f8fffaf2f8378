"""A small run of tests/service/jobs.py: a work queue behind a server, of which workers and the server are killed."""

from __future__ import annotations

import asyncio

from tests.service.jobs import campaign


def test_jobs_are_done_once_each_and_in_order_though_workers_and_server_are_killed():
    outcome = asyncio.run(campaign(jobs=400, workers=2, kills=2))
    assert outcome.bad == 0, str(outcome)
    assert outcome.kills == 2
