"""The alert rules: what they ask for exists, each one says what to do, and the document says no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from promql_parser import parse

from tests.service.test_metrics import families_of_everything
from walsvc.service.server.status import PARTS

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text()
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "examples" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rule_is_promql_and_has_a_runbook(rule):
    parse(rule["expr"])
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/OPERATIONS.md#{rule['alert'].lower()}"
    [text] = re.findall(rf"^### {rule['alert']}\n\n(.+?)(?=\n##)", OPERATIONS, re.M | re.S)
    assert len(text) > 80


async def test_rules_ask_only_for_metrics_and_labels_that_exist(tmp_path):
    known = await families_of_everything(tmp_path)
    histograms = {f"{name}_bucket": labels | {"le"} for name, (kind, labels) in known.items() if kind == "histogram"}
    labels_of = {name: labels for name, (_, labels) in known.items()} | histograms | {"up": {"job"}}
    for rule in RULES:
        names = set(re.findall(r"\b(?:walsvc_\w+|up)\b", rule["expr"]))
        assert names
        assert names <= set(labels_of), rule["alert"]
        there = {"instance", "reason"}.union(*(labels_of[name] for name in names))
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert used <= there, rule["alert"]
    assert PARTS[0] == "log", "WalsvcPartFailed leaves it to WalsvcLogFailed"


def test_document_describes_no_other_alert_and_its_links_lead_somewhere():
    described = re.findall(r"^### (Walsvc\w+)$", OPERATIONS, re.M)
    assert described == [rule["alert"] for rule in RULES]
    anchors = {
        re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in re.findall(r"^#+ (.+)$", OPERATIONS, re.M)
    }
    linked = re.findall(r"\]\(#([^)]+)\)", OPERATIONS)
    assert set(linked) <= anchors
    for path in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", OPERATIONS):
        assert (ROOT / "docs" / path).exists(), path


def test_prometheus_and_compose_take_the_rules():
    prometheus = yaml.safe_load((ROOT / "examples" / "prometheus.yml").read_text())
    assert prometheus["rule_files"] == ["alerts.yml"]
    compose = yaml.safe_load((ROOT / "examples" / "compose.yaml").read_text())
    assert "./alerts.yml:/etc/prometheus/alerts.yml:ro" in compose["services"]["prometheus"]["volumes"]
