"""Answers to appends as bytes: the same on every connection, and none beyond what the client takes."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime

import pytest

from tests.service.fronts.fuzz import TOKEN, Wire
from tests.service.fronts.fuzz import fronted as on_a_simulated_disk


async def exchange(session, version: str, connection: str, times: int = 1) -> list[tuple[str, dict[str, str], bytes]]:
    """The status line, headers and body of each answer that comes on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", session.side.port)
    head = f"POST /v1/topics/t HTTP/{version}\r\nHost: 127.0.0.1\r\n{connection}Content-Length: 1\r\n\r\nx".encode()
    answers = []
    try:
        for _ in range(times):
            writer.write(head)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:-2])
            answers.append((lines[0], headers, await reader.readexactly(int(headers["Content-Length"]))))
        if headers.get("Connection") == "close" or (version == "1.0" and "Connection" not in headers):
            assert await reader.read() == b""
    finally:
        writer.close()
    return answers


async def test_answers_on_connections_that_go_on_and_that_end_differ_in_nothing_else(fronted):
    async with fronted() as session:
        kept = await exchange(session, "1.1", "", times=3)
        [ended] = await exchange(session, "1.1", "Connection: close\r\n")
        [old] = await exchange(session, "1.0", "")
        old_and_kept = await exchange(session, "1.0", "Connection: keep-alive\r\n", times=2)
    assert [status for status, _, _ in kept] == ["HTTP/1.1 201 Created"] * 3
    assert [headers["ETag"] for _, headers, _ in kept] == ['"1"', '"2"', '"3"']
    assert "Connection" not in kept[0][1]
    assert (ended[0], ended[1].pop("Connection")) == ("HTTP/1.1 201 Created", "close")
    assert old[0] == "HTTP/1.0 201 Created"
    assert [headers.pop("Connection") for _, headers, _ in old_and_kept] == ["keep-alive"] * 2
    for _, headers, body in (*kept, ended, old, *old_and_kept):
        assert set(headers) == {"Content-Type", "ETag", "Location", "Content-Length", "Date", "Server"}
        assert (headers["Content-Type"], headers["Server"]) == ("application/json", kept[0][1]["Server"])
        assert headers["Location"] == f"/v1/topics/t/{headers['ETag'].strip(chr(34))}"
        assert parsedate_to_datetime(headers["Date"]).tzinfo is not None
        assert body.startswith(b'{"lsn": ')


@pytest.mark.parametrize("end", ["it reads on", "it goes"])
async def test_client_that_takes_no_answers_has_one_append_after_the_other_and_no_more(tmp_path, end):
    asked = (
        f"POST /v1/topics/t HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1\r\n\r\nx"
    )
    async with on_a_simulated_disk(tmp_path / "d") as target:
        protocol = target.side._server()
        wire = Wire(protocol)
        protocol.connection_made(wire)
        protocol.pause_writing()
        protocol.data_received(asked.encode() * 3)
        for _ in range(300):
            await asyncio.sleep(0)
        assert (wire.heard.count(b" 201 "), target.log.next_lsn) == (1, 2)
        if end == "it goes":
            wire.close()
        else:
            protocol.resume_writing()
        for _ in range(300):
            await asyncio.sleep(0)
        assert (wire.heard.count(b" 201 "), target.log.next_lsn) == ((1, 2) if end == "it goes" else (3, 4))
        wire.close()
        await asyncio.sleep(0)
        assert target.front.held_bytes == 0
