"""The free-space alarm: before appends meet NoSpace, said once, seen everywhere, and over when there is room again."""

from __future__ import annotations

import logging

import pytest

import walsvc
from tests.service.watching import Stub, get, parsed, serving
from walsvc.metrics import looking
from walsvc.service.ops.settings import load_settings
from walsvc.service.ops.space import SpaceWatch

MIB = 1 << 20


@pytest.fixture
def device(monkeypatch):
    """What the device says it has left, as `device.free`."""

    class Device:
        free = 100 * MIB

    async def free_bytes(log):
        return Device.free

    monkeypatch.setattr(looking, "free_bytes_of", free_bytes)
    monkeypatch.setattr("walsvc.service.ops.space.free_bytes_of", free_bytes)
    return Device


async def test_alarm_is_said_once_seen_everywhere_and_over_with_some_room_to_spare(tmp_path, device, caplog):
    caplog.set_level(logging.INFO, "walsvc.service")
    async with walsvc.open(tmp_path / "log", segment_bytes=MIB) as log:
        source = Stub(root=log)
        space = SpaceWatch(lambda: source.logs)
        async with serving(source, space=space) as session:
            await space.look()
            assert await get(session, "/readyz") == (200, "ready\n")
            device.free = 8 * MIB - 1
            await space.look()
            await space.look()
            line = f"log {str(tmp_path / 'log')!r} has 8388607 bytes of space left, fewer than 8388608"
            assert await get(session, "/readyz") == (200, f"ready\nwarning: {line}\n")
            samples = parsed((await get(session, "/metrics"))[1])
            assert samples["walsvc_disk_free_alarm", frozenset({("namespace", "")})] == 1
            assert samples["walsvc_disk_free_bytes", frozenset({("namespace", "")})] == 8388607
            async with session.get("/status") as answer:
                told = await answer.json()
            assert (told["ready"], told["warnings"], told["logs"][0]["free_bytes"]) == (True, [line], 8388607)
            source.tell(ready=False, reason="stopping")
            assert (await get(session, "/readyz"))[1] == f"not ready\nstopping\nwarning: {line}\n"
            device.free = 8 * MIB + 1
            await space.look()
            assert space.warnings == [line], "on the edge it stays"
            device.free = 9 * MIB
            await space.look()
            assert space.warnings == []
        said = [each.getMessage() for each in caplog.records]
        assert said == [
            f"{line}: truncate, reclaim or compact it, or enlarge the device, before appends get NoSpace",
            f"log {str(tmp_path / 'log')!r} has space again: 9437184 bytes",
        ]


async def test_alarm_of_one_size_or_none(tmp_path, device):
    async with walsvc.open(tmp_path / "log") as log:
        for limit, short in ((device.free + 1, True), (device.free, False), (0, False)):
            space = SpaceWatch(lambda: {"orders": log}, limit)
            await space.look()
            assert bool(space.warnings) == short
            assert space.short == ({"orders"} if short else set())


async def test_log_that_is_closed_is_not_asked(tmp_path):
    async with walsvc.open(tmp_path / "log") as log:
        space = SpaceWatch(lambda: {"": log}, 1 << 62)
        await space.look()
        assert len(space.warnings) == 1
    await space.look()
    assert await looking.free_bytes_of(log) is None


@pytest.mark.parametrize("value", [-1, 1 << 63])
def test_setting_has_bounds(tmp_path, value):
    with pytest.raises(walsvc.BadOption, match="free_alarm_bytes"):
        load_settings({"data": str(tmp_path), "unix": str(tmp_path / "s"), "free_alarm_bytes": value}, environment={})
