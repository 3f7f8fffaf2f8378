"""`walsvc serve` as a process: settings, signals, the service manager."""

from __future__ import annotations

import asyncio
import base64
import configparser
import hashlib
import os
import re
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

import walsvc
from tests.forked import ROOT, Forked, run_walsvc
from walsvc import BadOption, PathError
from walsvc.cli.main import app
from walsvc.service.ops.fields import FIELDS, LIMIT_FIELDS, MAIN_FIELDS, from_pairs
from walsvc.service.ops.notify import Notifier
from walsvc.service.ops.settings import load_settings, toml
from walsvc.service.wire.frames import FROM_SERVER, Ack, Append, Hello, StateFrame, Welcome
from walsvc.service.wire.protocol import FrameReader, encode

GOOD = {"data": "d", "unix": "s"}


def environment(**more: str) -> dict[str, str | None]:
    """Of a process that knows nothing of this one's settings."""
    return {
        **{name: None for name in (*os.environ, "NOTIFY_SOCKET") if name.startswith(("WALSVC_", "NOTIFY_"))},
        **more,
    }


def check(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`walsvc serve --check`."""
    return run_walsvc("serve", "--check", *arguments, stdin="", text=True, environment=environment(**more))


@contextmanager
def running(*arguments: str, before: str = "", **more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server, and the line in which it says where it listens. `before` is executed before the command line."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = Forked("serve", *arguments, before=before, environment=environment(**more), **pipes)
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "it does not come up"
        line = process.stdout.readline()
        if not line:
            process.wait(120)
            assert process.stderr is not None
            pytest.fail(process.stderr.read())
        yield process, line.strip()
    finally:
        process.kill()
        process.communicate()


def appended(path: Path, payload: bytes) -> int:
    """LSN of a record that a client appends through the Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(encode(Hello(0, "walsvc", 1, 1, os.environ.get("TEST_TOKEN"), None, "test", 0, {})))
        client.sendall(encode(Append(1, 0, 0, 0, 0, None, 0, b"", [payload])))
        frames = FrameReader(FROM_SERVER)
        while True:
            while (frame := frames.next_frame()) is not None:
                if isinstance(frame, Ack):
                    return frame.parts[0][0]
                assert isinstance(frame, Welcome | StateFrame), frame
            data = client.recv(65536)
            assert data, "the server hung up"
            frames.receive(data)


def test_serves_until_sigterm_and_ends_in_order(tmp_path) -> None:
    path = tmp_path / "s"
    with running("--data", str(tmp_path / "d"), "--unix", str(path)) as (process, line):
        assert line == f"listening on unix://{path}"
        assert appended(path, b"one") == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        assert not path.exists()

    async def look() -> tuple[bool, list[bytes]]:
        async with walsvc.open(tmp_path / "d") as log:
            return log.report.clean, [record.payload async for record in log.read()]

    assert asyncio.run(look()) == (True, [b"one"])


def test_killed_server_leaves_its_socket_and_the_next_one_replaces_it(tmp_path) -> None:
    path = tmp_path / "s"
    arguments = ("--data", str(tmp_path / "d"), "--unix", str(path))
    with running(*arguments) as (process, _):
        assert appended(path, b"one") == 1
        process.kill()
        process.wait(120)
        assert path.exists()
    with running(*arguments) as (process, _):
        assert appended(path, b"two") == 2
        second = run_walsvc("serve", *arguments, environment=environment())
        assert second.returncode == 4
        assert b"open for writing" in second.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0


def test_service_manager_hears_ready_watchdog_and_stopping(tmp_path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(60)
        manager.bind(str(tmp_path / "notify"))
        more = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "50000", "WALSVC_DATA": str(tmp_path / "d")}
        with running("--unix", str(tmp_path / "s"), **more) as (process, _):
            assert manager.recv(4096).split(b"\n")[0] == b"READY=1"
            assert manager.recv(4096) == b"WATCHDOG=1"
            assert manager.recv(4096) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            while (said := manager.recv(4096)) == b"WATCHDOG=1":
                pass
            assert said.split(b"\n")[0] == b"STOPPING=1"
            assert process.wait(120) == 0


def test_notifier_without_a_manager_says_nothing(tmp_path) -> None:
    assert not Notifier({}).say("READY=1")
    assert Notifier({"WATCHDOG_USEC": "1000"}).watchdog_seconds == 0.0
    gone = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "3000000"}
    assert not Notifier(gone).say("READY=1")
    assert Notifier(gone).watchdog_seconds == 1.5
    assert Notifier({**gone, "WATCHDOG_PID": "1"}).watchdog_seconds == 0.0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0walsvc-test-{os.getpid()}")
        assert Notifier({"NOTIFY_SOCKET": f"@walsvc-test-{os.getpid()}"}).say("READY=1", "STATUS=x")
        assert manager.recv(100) == b"READY=1\nSTATUS=x"


# ---- settings


def test_check_prints_what_is_in_effect_and_where_it_comes_from_and_no_secret(tmp_path) -> None:
    tokens, config = tmp_path / "tokens.toml", tmp_path / "serve.toml"
    tokens.write_text(
        '[[token]]\nname = "jobs"\ntoken = "SECRET-SECRET-SECRET"\nrights = ["append"]\nnamespaces = ["a"]\n'
    )
    config.write_text(f'data = "/from/file"\nunix = "/from/file.sock"\nconnections = 7\ntoken_file = "{tokens}"\n')
    done = check(
        "--config", str(config), "--unix", "/from/flag", "--set", "segment_bytes=65536",
        WALSVC_UNIX="/from/environment", WALSVC_CONNECTIONS="8", WALSVC_TOKEN="SECRET-OF-ENVIRONMENT",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split(" = ")[0]: " ".join(line.split()) for line in done.stdout.splitlines()}
    assert lines["data"] == 'data = "/from/file" # file'
    assert lines["unix"] == 'unix = "/from/flag" # flag'
    assert lines["connections"] == "connections = 8 # environment"
    assert lines["segment_bytes"] == "segment_bytes = 65536 # flag"
    assert lines["idle_seconds"] == "idle_seconds = 60.0 # default"
    assert "# token 'jobs': append; 'a'" in done.stdout
    assert "# token 'environment': admin, append, consume, read; all namespaces" in done.stdout
    assert "SECRET" not in done.stdout
    again = tmp_path / "again.toml"
    again.write_text(done.stdout)
    values = load_settings({}, config=str(again), environment={}).values
    assert {name: value.value for name, value in values.items() if value.origin != "file"} == {}, "it is a config file"


def key_file(path: Path, *ids: str) -> Path:
    """A key file with a key for each id; what stands in it is in no other place."""
    lines = [f"{id} {base64.b64encode(hashlib.sha256(id.encode()).digest()).decode()}\n" for id in ids]
    path.write_text("# keys\n" + "".join(lines))
    path.chmod(0o600)
    return path


def test_served_log_is_encrypted_with_the_keys_of_a_file(tmp_path) -> None:
    keys, data, path = key_file(tmp_path / "keys", "2026", "2025"), tmp_path / "d", tmp_path / "s"
    secret = keys.read_text().splitlines()[1].split()[1]
    with running("--data", str(data), "--unix", str(path), "--key-file", str(keys)) as (process, _):
        assert appended(path, b"nobody may read this") == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert not any(b"nobody may read this" in each.read_bytes() for each in data.glob("*.wal"))
    without = run_walsvc("serve", "--data", data, "--unix", path, environment=environment())
    assert without.returncode == 12
    with running("--data", str(data), "--unix", str(path), WALSVC_KEY_FILE=str(keys)):
        assert appended(path, b"more") == 2
    config = tmp_path / "serve.toml"
    config.write_text(f'data = "{data}"\nunix = "{path}"\nkey_file = "{keys}"\n')
    done = check(
        "--config", str(config), "--set", "double_write=buffered", "--set", "layout=pack", "--set", "reading=mapped"
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert f'key_file = "{keys}" # file' in said
    assert "# current key '2026'; older ones: '2025'" in said
    assert 'double_write = "buffered" # flag' in said
    assert 'layout = "pack" # flag' in said
    assert secret not in said
    assert "Secret" not in said
    assert "KeyRing" not in said


def test_key_file_that_is_wrong_is_told_without_what_it_holds(tmp_path) -> None:
    keys = key_file(tmp_path / "keys", "2026")
    secret = keys.read_text().splitlines()[1].split()[1]
    keys.chmod(0o644)
    for refused, code in (((BadOption, "chmod 600"), keys), ((PathError, "cannot be read"), tmp_path / "none")):
        with pytest.raises(refused[0], match=refused[1]) as caught:
            load_settings({**GOOD, "key_file": str(code)}, environment={})
        assert "chmod" in str(caught.value) or "--key-file" in str(caught.value)
        assert secret not in str(caught.value)
    keys.chmod(0o600)
    keys.write_text(f"2026 {secret[:-4]}\n")
    with pytest.raises(BadOption, match="line 1") as wrong:
        load_settings(GOOD, environment={"WALSVC_KEY_FILE": str(keys)})
    assert secret[:-4] not in str(wrong.value)
    with pytest.raises(BadOption, match="unknown setting 'keys'"):
        from_pairs(["keys=x"])


def test_password_in_the_replica_s_address_is_refused_and_not_repeated(tmp_path) -> None:
    given = {**GOOD, "replicate": "nats://me:hunter2:and@more@h1:4222,h2/stream"}
    with pytest.raises(BadOption, match="holds a secret") as caught:
        load_settings(given, environment={})
    assert "hunter2" not in str(caught.value)
    assert "more" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "directory of the log is not given"),
        (["--data", "d"], 2, "listen nowhere"),
        (["--data", "d", "--redis", "127.0.0.1:0"], 2, "--redis and --http come beside it"),
        (["--data", "nats://h1,h2,h3/s", "--unix", "s"], 2, "not a URL"),
        (["--data", "d", "--listen", "0.0.0.0:1"], 2, "no TLS and no token"),
        (["--data", "d", "--listen", "nonsense"], 2, "no address"),
        (["--data", "d", "--unix", "s", "--http", "0.0.0.0:1"], 2, "other machines"),
        (["--data", "d", "--unix", "s", "--tls-key", "k"], 2, "no certificate"),
        (["--data", "d", "--listen", "127.0.0.1:0", "--tls-cert", "/none"], 5, "cannot be read"),
        (["--data", "d", "--unix", "s", "--token-file", "/none"], 5, "cannot be read"),
        (["--data", "d", "--unix", "s", "--config", "/none"], 5, "cannot be read"),
        (["--data", "d", "--unix", "s", "--stop-seconds", "0"], 2, "stop_seconds=0.0 is out of bounds"),
        (["--data", "d", "--unix", "s", "--set", "connections=0"], 2, "connections=0 is out of bounds"),
        (["--data", "d", "--unix", "s", "--set", "connections=x"], 2, "a number (int)"),
        (["--data", "d", "--unix", "s", "--set", "connections"], 2, "has no value"),
        (["--data", "d", "--unix", "s", "--set", "read_only=1"], 2, "unknown setting 'read_only'"),
        (["--data", "d", "--unix", "s", "--set", "keys=x"], 2, "unknown setting 'keys'"),
        (["--data", "d", "--unix", "s", "--key-file", "/none"], 5, "cannot be read"),
        (["--data", "d", "--unix", "s", "--set", "layout=pack"], 2, "needs double_write"),
    ],
)
def test_check_tells_what_is_wrong(arguments, code, says, monkeypatch) -> None:
    for name in [name for name in os.environ if name.startswith("WALSVC_")]:
        monkeypatch.delenv(name)
    done = CliRunner().invoke(app, ["serve", "--check", *arguments])
    assert done.exit_code == code, done
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("data = 5", "data in the config file is int"),
        ("namespaces = 1", "namespaces in the config file is int"),
        ("connections = 1.5", "connections in the config file is float"),
        ("unknown = 1", "unknown setting 'unknown'"),
        ("token = 'secret'", "a token stands in the config file"),
        ("data = ", "not TOML"),
        ("http = ''", "no address"),
    ],
)
def test_config_file_that_is_wrong_is_refused(tmp_path, content, says) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(content)
    with pytest.raises(BadOption, match=says):
        load_settings(GOOD, config=str(path), environment={})
    with pytest.raises(PathError, match="cannot be read") as caught:
        load_settings(GOOD, environment={"WALSVC_CONFIG": str(tmp_path / "none")})
    assert "--config" in caught.value.hint


def test_environment_knows_every_setting_and_its_type() -> None:
    found = load_settings(
        {},
        environment={
            "WALSVC_DATA": "d", "WALSVC_UNIX": "s", "WALSVC_NAMESPACES": "yes", "WALSVC_STOP_SECONDS": "3",
            "WALSVC_DIRECT": "off", "WALSVC_RELAXED_INTERVAL": "1.5", "WALSVC_RETAIN_BYTES": "65536", "WALSVC_HTTP": "",
            "WALSVC_DISK": "threads", "WALSVC_SOMETHING_ELSE": "x",
        },
    )  # fmt: skip
    assert (found.main.namespaces, found.main.stop_seconds, found.main.http) == (True, 3.0, "off")
    assert (found.log.direct, found.log.relaxed_interval, found.log.retain_bytes) == (False, 1.5, 65536)
    assert found.log.disk == "threads"
    with pytest.raises(BadOption, match="true or false"):
        load_settings(GOOD, environment={"WALSVC_INSECURE": "maybe"})
    assert from_pairs(["relaxed_interval=", "frame_bytes=65536"]) == {"relaxed_interval": None, "frame_bytes": 65536}
    assert set(found.values) == set(FIELDS)


def test_settings_describe_the_server(tmp_path) -> None:
    given = {"data": str(tmp_path), "listen": "127.0.0.1:0", "connections": 9, "http": "127.0.0.1:0"}
    server = load_settings(given, environment={}).server()
    assert server.shared.limits.connections == 9
    assert server.logs_by_name.several is False
    assert server.status().reason == "starting"


def test_document_shows_every_setting_and_its_default() -> None:
    text = (ROOT / "docs" / "SERVICE.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    shown = {name: row[2].strip() for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    for name, field in {**MAIN_FIELDS, **LIMIT_FIELDS}.items():
        assert name in shown, name
        default = shown[name].replace(",", "")
        if name == "frame_bytes":
            assert field.default == (64 << 20) + (128 << 10)
        elif default.endswith(" MiB"):
            assert int(default.removesuffix(" MiB")) << 20 == field.default
        else:
            assert default == ("" if field.default is None else toml(field.default).strip('"').removesuffix(".0"))


def test_unit_file_uses_what_the_program_does() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "packaging" / "walsvc.service")
    service = dict(unit["Service"])
    assert service["Type"] == "notify"
    assert "walsvc serve" in service["ExecStart"]
    assert float(service["TimeoutStopSec"]) > 20.0, "more than stop_seconds"
    config = ROOT / "packaging" / "serve.toml"
    found = load_settings({}, config=str(config), environment={})
    assert service["StateDirectory"] == Path(found.main.data or "").name
    assert service["RuntimeDirectory"] == Path(found.main.unix or "").parent.name
    for name in re.findall(r"^# (\w+) = ", config.read_text(), re.MULTILINE):
        assert name in FIELDS
