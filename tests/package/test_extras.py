"""The base installation appends and reads; whatever needs an extra names it in one line."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.forked import ROOT
from walsvc.extras import EXTRAS

from . import bare


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare.install(tmp_path_factory.mktemp("bare") / "site")


def good(finished: object) -> str:
    assert isinstance(finished, bare.subprocess.CompletedProcess)
    assert finished.returncode == 0, finished.stderr
    return str(finished.stdout)


FIRST = """
import asyncio, sys, threading
import walsvc
assert not [name for name in sys.modules if name.startswith("walsvc.")], "import walsvc imports nothing of itself"
loop_thread, late = threading.get_ident(), []

async def main():
    opening = walsvc.open({target!r})
    before = set(sys.modules)
    sys.addaudithook(lambda event, arguments: late.append(arguments[0])
        if event == "import" and threading.get_ident() == loop_thread and arguments[0] not in before else None)
    async with opening as log:
        await log.append(b"first")
        await log.append(b"labels", attributes={{"a": 1}})
        assert [record.payload async for record in log.read()] == [b"first", b"labels"]
        topic = log.topic("orders")
        await topic.append_batch([b"1", b"2"])
        async with await topic.consumer("billing") as consumer:
            assert (await consumer.next()).payload == b"1"
        await log.truncate_before(2)
    async with walsvc.open({target!r}, read_only=True) as log:
        assert [record.payload async for record in log.read()] == [b"labels", b"1", b"2"]

asyncio.run(main())
assert not late, f"imported on the loop: {{late}}"
third = {{name.partition(".")[0] for name in sys.modules if getattr(sys.modules[name], "__file__", None)}}
print(*sorted(third - sys.stdlib_module_names))
print(*sorted(name for name in sys.modules))
"""
HEAVY = {
    "argparse",
    "email",
    "zipfile",
    "importlib.metadata",
    "statistics",
    "hashlib",
    "multiprocessing",
    "tempfile",
    "uuid",
}


def test_the_base_installation_appends_and_reads_and_imports_nothing_on_the_loop(
    installation: Path, tmp_path: Path
) -> None:
    said = good(bare.run(installation, "-c", FIRST.format(target=str(tmp_path / "log"))))
    third, modules = (line.split() for line in said.splitlines())
    assert set(third) <= {
        "__main__",
        "walsvc",
        "aiofiles",
        "cffi",
        "_cffi_backend",
        "crc32c",
        "msgpack",
        "_cython_3_3_0",
    }
    assert not HEAVY & set(modules)


FIRST_APPEND = """
import asyncio, sys
made, before = [], set(sys.modules)
sys.addaudithook(lambda event, about: made.append(about) if event == "compile" and about[1] == "<string>" else None)
import walsvc

async def main():
    async with walsvc.open({target!r}) as log:
        await log.append(b"first")
        print(len(made))
        print(*set(sys.modules) - before)

asyncio.run(main())
"""
NEEDED = {"bisect", "copy", "ctypes", "dataclasses", "datetime", "importlib.util", "json", "mmap", "msgpack", "queue"}
"""What the way to the first append imports beside walsvc and what asyncio has imported."""
# each module costs 0.2 ms, and so do two pieces of code that dataclasses and NamedTuple make
MODULES_MAX, MADE_MAX = 180, 460
ONLY_READING = {"walsvc.log.recover.watched", "walsvc.log.recover.looking", "walsvc.topics.readonly"}


def test_the_way_to_the_first_append_imports_what_it_needs(installation: Path, tmp_path: Path) -> None:
    said = good(bare.run(installation, "-c", FIRST_APPEND.format(target=str(tmp_path / "log"))))
    made, imported = said.splitlines()
    modules = set(imported.split())
    others = {name for name in modules if not name.startswith(("walsvc", "_", "cython_runtime"))}
    assert {name for name in others if name not in NEEDED and name.partition(".")[0] not in NEEDED} <= {
        "importlib._abc"
    }
    assert not ONLY_READING & modules
    assert len([name for name in modules if name.startswith("walsvc")]) <= MODULES_MAX
    assert int(made) <= MADE_MAX  # an internal value is a NamedTuple, and a part with a state leaves out eq and repr


@pytest.mark.parametrize(("extra", "code"), [
    ("crypto", "walsvc.KeyRing(current=('a', b'k' * 32))"),
    ("nats", "walsvc.open('nats://127.0.0.1/stream')"),
    ("nats", "walsvc.open('data', replicate='nats://127.0.0.1/stream')"),
    ("archive", "from walsvc.engines.archive.objects import Objects; Objects.at('file:///tmp/a')"),
])  # fmt: skip
def test_a_part_whose_extra_is_missing_names_it(installation: Path, extra: str, code: str) -> None:
    finished = bare.run(installation, "-c", f"import walsvc\n{code}")
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("walsvc.errors.BadOption: "), finished.stderr
    assert last.endswith(f"which is not installed. Hint: pip install 'walsvc[{extra}]'")


@pytest.mark.parametrize("module", ["walsvc", "walsvc.cli"])
def test_the_command_line_without_its_extra_is_one_line(installation: Path, module: str) -> None:
    finished = bare.run(installation, "-m", module, "append", "data")
    assert finished.returncode == 2
    assert finished.stderr == (
        "walsvc: the command line needs typer, which is not installed. Hint: pip install 'walsvc[cli]'\n"
    )
    assert finished.stdout == ""


HIDE = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None
sys.argv = ["walsvc", *{arguments!r}]
from walsvc.__main__ import main
main()
"""


@pytest.mark.parametrize(("hidden", "extra", "arguments"), [
    (["rich"], "cli", ["--version"]),
    (["uvloop"], "uvloop", ["bench", "run", "{log}", "--loop", "uvloop"]),
    (["cryptography"], "crypto", ["append", "{log}", "--key-file", "{keys}"]),
    (["aiohttp"], "service", ["serve", "--data", "{log}", "--unix", "{log}.sock", "--http", "127.0.0.1:0"]),
    (["prometheus_client"], "service", ["serve", "--data", "{log}", "--unix", "{log}.sock", "--http", "127.0.0.1:0"]),
    (["nats"], "nats", ["append", "nats://127.0.0.1/stream"]),
    (["obstore"], "archive", ["archive", "ls", "{log}"]),
])  # fmt: skip
def test_a_command_whose_extra_is_missing_is_one_line(
    tmp_path: Path, hidden: list[str], extra: str, arguments: list[str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"one {'A' * 43}=\n")
    keys.chmod(0o600)
    given = [each.format(log=tmp_path / "log", keys=keys) for each in arguments]
    finished = bare.subprocess.run(
        [sys.executable, "-c", HIDE.format(hidden=hidden, arguments=given)],
        capture_output=True, text=True, check=False, timeout=120, cwd=ROOT, input="",
    )  # fmt: skip
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.splitlines()[-1].startswith("walsvc: ")
    assert finished.stderr.endswith(f"Hint: pip install 'walsvc[{extra}]'\n"), finished.stderr


def test_every_extra_is_declared_with_the_packages_that_it_is_named_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for module, extra in EXTRAS.items():
        names = {re.split(r"[\[><=]", each)[0] for each in extras[extra]}
        assert names & {module.replace("_", "-"), f"{module}-py", f"{module}-api"}, (module, extra)
    named = {each for line in extras["all"] for each in line[len("walsvc[") : -1].split(",")}
    assert named == set(EXTRAS.values()) | {"plot"}
    readme = (ROOT / "README.md").read_text()
    assert all(f"| `{extra}` |" in readme for extra in named)
