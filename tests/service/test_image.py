"""What the Dockerfile, the compose file and the documents say about the image is what the server understands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from walsvc.cli.main import app
from walsvc.service.ops.fields import NOT_SETTINGS
from walsvc.service.ops.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "examples" / "compose.yaml").read_text()
ENVIRONMENT = dict(re.findall(r"\b(WALSVC_\w+)=(\S+)", DOCKERFILE))


@pytest.mark.parametrize(
    "file", ["Dockerfile", "examples/compose.yaml", "docs/SERVICE.md", "docs/METRICS.md", "docs/CLI.md"]
)
def test_only_settings_that_there_are(file):
    settings = load_settings({"data": "/data", "unix": "/run/s"}, environment={})
    known = {line.partition(" = ")[0].upper() for line in settings.lines() if " = " in line} | NOT_SETTINGS
    named = set(re.findall(r"\bWALSVC_([A-Z_]+[A-Z])", (ROOT / file).read_text()))
    assert named <= known


def test_the_image_serves_by_default_and_asks_itself_how_it_is():
    verbs = get_command(app).commands
    assert json.loads(re.search(r"^ENTRYPOINT (.*)", DOCKERFILE, re.M)[1]) == ["walsvc"]
    (verb,) = json.loads(re.search(r"^CMD (.*)", DOCKERFILE, re.M)[1])
    assert verb == "serve"
    probe = json.loads(re.search(r"^HEALTHCHECK .* CMD (.*)", DOCKERFILE, re.M)[1])
    assert probe == ["walsvc", "health"]
    assert {"serve", "health"} <= set(verbs)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.M)


def test_its_settings_are_good_private_and_end_in_time(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    settings = load_settings({})
    settings.server()
    main = settings.main
    volumes = re.search(r"^VOLUME (.*)", DOCKERFILE, re.M)[1].split()
    assert main.data in volumes
    assert str(Path(main.unix).parent) in volumes
    assert main.listen is None
    assert main.http == "127.0.0.1:7421"
    assert main.stop_seconds < 10, "docker stop kills after 10 s"


def test_the_example_gives_it_time_to_end_and_publishes_nothing():
    stop = float(re.search(r'WALSVC_STOP_SECONDS: "(\d+)"', COMPOSE)[1])
    assert stop < float(re.search(r"stop_grace_period: (\d+)s", COMPOSE)[1])
    published = re.findall(r'^\s+ports: \["([^"]+)"\]', COMPOSE, re.M)
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    for name in re.findall(r"- \./(\S+?):/", COMPOSE):
        assert (ROOT / "examples" / name).is_file(), name
    target = re.search(r'targets: \["([^"]+)"\]', (ROOT / "examples" / "prometheus.yml").read_text())[1]
    assert target == ENVIRONMENT["WALSVC_HTTP"]
