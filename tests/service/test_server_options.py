"""Whatever is wrong with a server's options is said before anything is made; its Unix socket is made off the loop."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

import walsvc
from walsvc import BadOption, WalConfig, WalError
from walsvc.service.server import listeners, serve

WRONG: list[dict[str, Any]] = [
    {"unix": "unix:/x"},
    {"unix": "unix:///x"},
    {"unix": ""},
    {"unix": Path("a\0b")},
    {"unix": "x" * 200},
    {"unix": 5},
    {"archive": "file:rel"},
    {"archive": "s3:/x"},
    {"archive": ""},
    {"archive": __file__},
    {"config": WalConfig(replicate="foo")},
    {"config": WalConfig(read_only=True)},
    {"config": WalConfig(namespace="a"), "namespaces": True},
    {"config": WalConfig(replicate="nats://h/s"), "namespaces": True},
    {"namespaces": "yes"},
    {"insecure": 1},
    {"opener": 3},
    {"host": "127.0.0.1", "port": None},
    {"host": "127.0.0.1", "port": 0, "tls": ssl.create_default_context()},
    {"stop_seconds": "soon"},
    {"stop_seconds": float("nan")},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_wrong_option_is_refused_before_anything_is_made(wrong: dict[str, Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(WalError) as raised:
        async with serve(data, **{"unix": tmp_path / "s", **wrong}):
            pass
    assert raised.value.hint or raised.value.expected
    assert os.listdir(tmp_path) == []


async def test_url_in_place_of_a_socket_path_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="a Unix socket is needed here, not a URL") as raised:
        async with serve(tmp_path / "data", unix="unix:///run/x.sock"):
            pass
    assert "clients open unix:///" in str(raised.value.hint)


async def test_loop_runs_while_the_file_system_of_the_socket_stalls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled, go_on = asyncio.Event(), threading.Event()
    loop, lock, unlink = asyncio.get_running_loop(), listeners.take_lock, listeners.remove

    def wait() -> None:
        loop.call_soon_threadsafe(stalled.set)
        assert go_on.wait(60)

    def slow_lock(file: str, name: str) -> int:
        wait()
        return lock(file, name)

    def slow_remove(path: str) -> None:
        wait()
        unlink(path)

    monkeypatch.setattr(listeners, "take_lock", slow_lock)
    monkeypatch.setattr(listeners, "remove", slow_remove)
    serving = serve(tmp_path / "data", unix=tmp_path / "s")
    for step in (serving.__aenter__(), serving.__aexit__(None, None, None)):
        doing = asyncio.ensure_future(step)
        await stalled.wait()  # the loop runs on
        stalled.clear()
        go_on.set()
        await doing
        go_on.clear()
    assert not (tmp_path / "s").exists()


async def test_socket_whose_server_was_given_up_meanwhile_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, go_on = asyncio.Event(), threading.Event()
    loop, bind = asyncio.get_running_loop(), listeners.bind_unix

    def slow_bind(name: str) -> Any:
        bound = bind(name)
        loop.call_soon_threadsafe(made.set)
        assert go_on.wait(60)
        return bound

    with monkeypatch.context() as patch:
        patch.setattr(listeners, "bind_unix", slow_bind)
        starting = asyncio.ensure_future(serve(tmp_path / "data", unix=tmp_path / "s").__aenter__())
        await made.wait()
        starting.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
    while (tmp_path / "s").exists():  # until the thread that has made it is told
        await asyncio.sleep(0)
    async with serve(tmp_path / "data", unix=tmp_path / "s"), walsvc.open(f"unix://{tmp_path}/s") as log:
        assert (await log.append(b"x")).lsn == 1
