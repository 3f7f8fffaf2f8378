"""Figures as PNG files, and one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Callable
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from bench import figures
from bench.environment import load_results

DOTS_PER_INCH = 110
CAPTIONS: dict[str, str] = {
    "throughput": "walsvc beside its peers and the limit. Every point is the median of turns taken in a round with the others, "
    "each in a process of its own, on the same file system.",
    "targets": "The targets P1 to P12: each is a ratio of two things measured in turn in the same run.",
    "curve": "walsvc over the number of tasks: throughput beside what device and asyncio allow, latencies, records per sync.",
    "growth": "What changes as a log grows. Each point is a log of its own, opened in a process of its own.",
}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "img{max-width:100%;height:auto}table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left}"
    ".warn{color:#c0392b;font-weight:bold}"
)


def draw(results: str, out: str) -> list[str]:
    """Draw what the newest results in `results` allow into `out`; returns the paths written, the page last.

    Raises FileNotFoundError where there are no results at all.
    """
    sources: tuple[tuple[str, str, Callable[[list[dict[str, Any]]], Figure]], ...] = (
        ("throughput", "compare", figures.throughput),
        ("targets", "limits", figures.targets),
        ("curve", "limits", figures.curve),
        ("growth", "growth", figures.growth),
    )
    os.makedirs(out, exist_ok=True)
    written, sections = [], []
    for name, kind, make in sources:
        lines = load_results(results, kind)
        if not lines:
            continue
        buffer = BytesIO()
        make(lines).savefig(buffer, format="png", dpi=DOTS_PER_INCH)
        path = os.path.join(out, f"{name}.png")
        with open(path, "wb") as file:
            file.write(buffer.getvalue())
        written.append(path)
        sections.append(section(name, buffer.getvalue(), lines))
    if not written:
        raise FileNotFoundError(2, "no results yet; run `make bench` or `make compare` first", results)
    page = os.path.join(out, "index.html")
    with open(page, "w", encoding="utf-8") as file:
        file.write(whole(sections))
    return [*written, page]


def section(name: str, image: bytes, lines: list[dict[str, Any]]) -> str:
    """One figure with its caption, what it was measured on, and who was left out."""
    encoded = base64.b64encode(image).decode("ascii")
    parts = [f"<h2>{html.escape(name.capitalize())}</h2><p>{html.escape(CAPTIONS[name])}</p>"]
    if not all(line["durable"] for line in lines):
        parts.append('<p class="warn">Not durable: measured on a memory-backed file system.</p>')
    parts.append(f'<img alt="{html.escape(CAPTIONS[name])}" src="data:image/png;base64,{encoded}">')
    skipped = [line for line in lines if "skipped" in line]
    if skipped:
        rows = "".join(f"<li>{html.escape(line['peer'])}: {html.escape(line['skipped'])}</li>" for line in skipped)
        parts.append(f"<p>Skipped:</p><ul>{rows}</ul>")
    where = lines[0]["environment"]
    facts = {
        "run": where["run"],
        "commit": where["commit"] or "unknown",
        "file system": f"{where['file_system']} on {where['device']}",
        "machine": ", ".join(str(value) for value in where["machine"].values()),
        "loop": where["loop"],
    }
    rows = "".join(f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in facts.items())
    parts.append(f"<table>{rows}</table>")
    return "\n".join(parts)


def whole(sections: list[str]) -> str:
    """The page."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>walsvc: measurements</title><style>{STYLE}</style></head><body>\n"
        "<h1>walsvc: measurements</h1>\n"
        "<p>Figures differ from machine to machine and from run to run; compare only what one run measured.</p>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )
