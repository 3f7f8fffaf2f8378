"""The programs of examples/clients do with a log what they do with Redis, each with the library that its language uses.

All but the one in Python fetch their library when they run, so they run where WALSVC_CLIENTS is set: `make clients`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.service.simulated import serving
from walsvc.service.fronts.redis.listening import listen

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
COMMANDS = {
    "python": [sys.executable, "orders.py"],
    "node": ["sh", "-c", 'npm install --silent --no-audit --no-fund && exec node orders.mjs "$0"'],
    "go": ["go", "run", "."],
    "java": ["sh", "-c", 'exec mvn -q -B compile exec:java -Dexec.args="$0"'],
}
TOOLS = {"python": sys.executable, "node": "npm", "go": "go", "java": "mvn"}


@pytest.mark.timeout(900)  # the first run of Go or of Maven fetches libraries and compiles them
@pytest.mark.parametrize("language", COMMANDS)
async def test_program_does_its_orders_and_does_them_again(language: str, tmp_path: Path) -> None:
    if language == "python":
        pytest.importorskip("redis", reason="redis-py is not installed (walsvc[dev])")
    elif "WALSVC_CLIENTS" not in os.environ:
        pytest.skip("fetches its library from a registry: make clients")
    elif shutil.which(TOOLS[language]) is None:
        pytest.skip(f"there is no {TOOLS[language]}")
    place = tmp_path / language
    shutil.copytree(CLIENTS / language, place)
    async with serving(tmp_path) as server:
        url = await listen(server, "127.0.0.1:0")
        for run in (1, 2):
            program = await asyncio.create_subprocess_exec(
                *COMMANDS[language],
                url.rpartition(":")[2],
                cwd=place,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            said, complained = await program.communicate()
            assert program.returncode == 0, complained.decode()
            lines = said.decode().replace("\x1b[0m", "").split("\n")  # Maven resets colours
            assert lines[-5:] == ["done book", "done lamp", "done chair", "pending 0", ""]
            assert await server.logs[""].topic("orders").count() == 3 * run
