"""What type checkers say: of programs as users write them, of the package as a whole, and of the classes behind the protocols."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import create_autospec

import pytest

import walsvc
from tests.forked import ROOT
from walsvc import api, blocking, config, keywords, open_keywords
from walsvc.engines.jetstream.options import DIRECTORY_OPTIONS, JetStreamOptions
from walsvc.service.client import config as client
from walsvc.service.client.remote import RemoteLog
from walsvc.service.client.topic import RemoteTopic
from walsvc.topics.topic import Topic

PROGRAMS = Path(__file__).parent / "programs"
COMPLETE_PERCENT = 98.0
Seen = set[tuple[str, int, str]]


def expected(column: int) -> Seen:
    """(file, line, rule) of the mistakes in the programs; `column` 0: mypy's codes, 1: pyright's rules."""
    found: Seen = set()
    for path in PROGRAMS.glob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "# wrong: " in line:
                found.add((path.name, number, line.partition("# wrong: ")[2].split()[column]))
    assert found
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which walsvc is installed, for pyright, which does not know editable installations."""
    place = tmp_path_factory.mktemp("site")
    (place / "walsvc").symlink_to(ROOT / "walsvc")
    return place


def pyright(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("basedpyright", reason="basedpyright is not installed (walsvc[dev])")
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_mypy_passes_what_is_right_and_names_each_mistake() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    finished = subprocess.run(
        [*command, *map(str, PROGRAMS.glob("*.py"))], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    found: Seen = set()
    for line in finished.stdout.splitlines():
        if match := re.fullmatch(r".*?([\w.]+\.py):(\d+): error: .* \[([\w-]+)\]", line):
            found.add((match[1], int(match[2]), match[3]))
    assert found == expected(0), finished.stdout + finished.stderr


def test_pyright_passes_what_is_right_and_names_each_mistake(site: Path) -> None:
    settings = {"include": [str(PROGRAMS)], "typeCheckingMode": "strict"}
    (site / "pyrightconfig.json").write_text(json.dumps(settings))
    finished = pyright(site, "--outputjson", "-p", str(site))
    found: Seen = set()
    for each in json.loads(finished.stdout)["generalDiagnostics"]:
        place = Path(each["file"]).name, each["range"]["start"]["line"] + 1
        if each["severity"] == "error" and "Unknown" not in each["rule"]:  # those follow from the others
            found.add((*place, each["rule"]))
    assert found >= expected(1), finished.stdout
    assert {each[:2] for each in found} == {each[:2] for each in expected(1)}, (
        finished.stdout
    )  # one mistake may break two rules


def test_the_package_is_completely_typed(site: Path) -> None:
    said = pyright(site, "--verifytypes", "walsvc", "--ignoreexternal").stdout
    score = re.search(r"completeness score: ([\d.]+)%", said)
    assert score is not None, said
    assert float(score[1]) >= COMPLETE_PERCENT, said


def test_keywords_are_those_of_the_classes_that_check_them() -> None:
    literal = {"DiskKind": 'Literal["auto", "uring", "threads"]'}

    def types(of: type) -> dict[str, str]:
        fields = {field.name: str(field.type).replace("os.PathLike", "PathLike") for field in dataclasses.fields(of)}
        return {name: literal.get(kind, kind).replace("ssl.", "") for name, kind in fields.items()}

    def given(of: type) -> dict[str, str]:
        found = {name: getattr(kind, "__forward_arg__", str(kind)) for name, kind in of.__annotations__.items()}
        return {name: literal.get(kind, kind) for name, kind in found.items()}

    log, own = types(config.WalConfig), types(JetStreamOptions)
    assert given(open_keywords.LogOptions) | {"read_only": "bool"} == log
    assert given(open_keywords.ClientOptions) == types(client.ClientConfig)
    of_a_stream = {name: kind for name, kind in log.items() if name not in {*DIRECTORY_OPTIONS, "namespace"}}
    assert given(open_keywords.StreamOptions) == of_a_stream | own


@pytest.mark.parametrize("kind", [api.Log, RemoteLog, walsvc.WalWriter, walsvc.Log])
def test_what_everybody_calls_is_a_documented_method_of_the_class(kind: type) -> None:
    for name in ("append", "append_nowait", "append_batch", "flush", "wait_durable"):
        method = inspect.getattr_static(kind, name)
        assert inspect.isfunction(method), name
        assert method.__doc__, name
    mock = create_autospec(kind, instance=True)
    mock.append(b"x", mode=walsvc.Strict, expected=1, dedupe="a")
    for call in (mock.append, mock.append_nowait, mock.append_batch):
        with pytest.raises(TypeError):
            call(b"x", mood=walsvc.Strict)
    with pytest.raises(AttributeError):
        mock.apend(b"x")


@pytest.mark.parametrize(
    "kind", [api.Log, RemoteLog, walsvc.WalWriter, walsvc.Log, Topic, RemoteTopic, walsvc.Topic, blocking.Log]
)
def test_help_names_and_explains_each_keyword_of_a_call_that_appends(kind: type) -> None:
    of_a_record: type = (
        keywords.TopicAppendOptions if kind in {Topic, RemoteTopic, walsvc.Topic} else keywords.AppendOptions
    )
    calls = {"append": of_a_record, "append_nowait": of_a_record, "append_batch": keywords.BatchOptions}
    for name in calls.keys() & vars(blocking.Log).keys() if kind is blocking.Log else calls:
        shown = inspect.signature(getattr(kind, name)).parameters
        assert {each for each, its in shown.items() if its.kind is inspect.Parameter.KEYWORD_ONLY} - {"topic"} == set(
            calls[name].__annotations__
        )
        assert not any(its.kind is inspect.Parameter.VAR_KEYWORD for its in shown.values())
    for options in (keywords.BatchOptions, keywords.AppendOptions, keywords.TopicAppendOptions):
        explained = pydoc.render_doc(options, renderer=pydoc.plaintext)
        assert [name for name in options.__annotations__ if not re.search(rf"\b{name}\b.*: \w", explained)] == []
