"""A line for each call that needs the right admin: who, where, what, and what became of it."""

from __future__ import annotations

import logging

import pytest

import walsvc
from walsvc.service.server import serve
from walsvc.service.server.auth import Grant, Tokens


async def test_admin_calls_leave_a_line_and_others_none(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "walsvc.audit")
    tokens = Tokens(
        (name * 4, Grant(name, rights))
        for name, rights in (("boss", frozenset({"admin", "append", "read"})), ("temp", frozenset({"append"})))
    )
    async with serve(tmp_path / "log", unix=tmp_path / "s", tokens=tokens):
        monkeypatch.setenv("WALSVC_TOKEN", "boss" * 4)
        async with walsvc.open(f"unix://{tmp_path / 's'}", name="cron\x1b[31m") as log:
            await log.append_batch([b"x"] * 5)
            await log.refresh()
            await log.truncate_before(3)
            await log.hold("backup", 4)
            with pytest.raises(walsvc.BadOption):
                await log.truncate_before(5)
        monkeypatch.setenv("WALSVC_TOKEN", "temp" * 4)
        async with walsvc.open(f"unix://{tmp_path / 's'}") as log:
            with pytest.raises(walsvc.Denied):
                await log.truncate_after(0)
            await log.flush()
    lines = [each.getMessage() for each in caplog.records if each.name == "walsvc.audit"]
    path = tmp_path / "log"
    who = "boss 'cron\\x1b[31m' at unix"
    assert lines[:2] == [
        f'{who}: truncate_before {{"lsn": 3, "force": false}} on {path}: done',
        f'{who}: hold {{"name": "backup", "lsn": 4}} on {path}: done',
    ]
    assert "on " + str(path) + ": BadOption: truncate_before(5) would drop what 'backup' holds" in lines[2]
    assert lines[3].startswith("temp ")
    assert lines[3].endswith(f'truncate_after {{"lsn": 0}} on {path}: Denied: this token may not call truncate_after')
    assert len(lines) == 4
