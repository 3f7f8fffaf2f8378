"""The figures of `python -m bench plot`, from result lines to matplotlib figures. No state, no display."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullLocator

from bench.targets import Target

Lines = list[dict[str, Any]]

OURS = "#c0392b"
LIMIT = "#222222"
KINDS = {"naive": "#2c7fb8", "python": "#41ab5d", "server": "#8856a7", "rust": "#d95f0e", "go": "#5e7f99"}
"""Line colour by kind of peer; the label at the line's end tells which one it is."""
LABEL_GAP = 0.035  # least distance of two labels, as a share of the axis


def amount(value: float, _: object = None) -> str:
    """1500 is "1.5 k"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def microseconds(value: float, _: object = None) -> str:
    """1500 is "1.5 ms"."""
    if value >= 1e6:
        return f"{value / 1e6:g} s"
    return f"{value / 1e3:g} ms" if value >= 1e3 else f"{value:g} us"


def size(value: float, _: object = None) -> str:
    """1536 is "1.5 KiB"."""
    for unit, count in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(value) >= count:
            return f"{value / count:.3g} {unit}"
    return f"{value:.3g} B"


def throughput(compared: Lines) -> Figure:
    """Appends per second against concurrent appends: walsvc, every peer at its best configuration, and the limit."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots()
    ends: list[tuple[float, str, str]] = []
    for name, lines in best_configurations(compared).items():
        ours, limit = name == "walsvc", name == "limit"
        colour = OURS if ours else LIMIT if limit else KINDS[lines[0]["peer_kind"]]
        tasks = [line["tasks"] for line in lines]
        middle = [median(line["per_s"]) for line in lines]
        style = "--" if limit else "-"
        axes.plot(
            tasks, middle, style, color=colour, linewidth=3 if ours else 1.3, marker="" if limit else "o", markersize=5
        )
        if not limit:
            axes.vlines(
                tasks, [min(line["per_s"]) for line in lines], [max(line["per_s"]) for line in lines], color=colour
            )
        ends.append((middle[-1], "limit of device and asyncio" if limit else name, colour))
    both_logarithmic(axes, sorted({line["tasks"] for line in compared if "tasks" in line}))
    axes.yaxis.set_major_formatter(FuncFormatter(amount))
    axes.set_ylabel("durable appends per second")
    axes.set_xlabel("concurrent appends")
    end_labels(axes, ends)
    first = next((line for line in compared if "size" in line), {"size": "?", "rounds": "?"})
    axes.set_title(
        f"Durable appends of {first['size']} B: medians over {first['rounds']} rounds, bars from least to most",
        loc="left",
    )
    return figure


def best_configurations(compared: Lines) -> dict[str, Lines]:
    """Lines of each peer by number of tasks. Where it was run in several configurations, the fastest at each number."""
    best: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in compared:
        if "skipped" in line:
            continue
        name = line["peer"] + (" behind a collector" if line.get("collected") else "")
        known = best[name].get(line["tasks"])
        if known is None or median(line["per_s"]) > median(known["per_s"]):
            best[name][line["tasks"]] = line
    return {name: [lines[tasks] for tasks in sorted(lines)] for name, lines in best.items()}


def end_labels(axes: Axes, ends: Iterable[tuple[float, str, str]]) -> None:
    """Names right of their lines' ends, moved apart where they would overlap, each with a line that leads to its end."""
    low, high = axes.get_ylim()
    bottom, top = (math.log10(bound) for bound in (low, high))
    ranked = sorted(ends)
    shares = [(math.log10(value) - bottom) / (top - bottom) for value, _, _ in ranked]
    for share, place, (_, name, colour) in zip(shares, spread_out(shares), ranked, strict=True):
        axes.plot([1.0, 1.03], [share, place], color=colour, linewidth=0.6, transform=axes.transAxes, clip_on=False)
        weight = "bold" if name == "walsvc" else "normal"
        axes.text(
            1.035, place, name, color=colour, va="center", fontsize=9, fontweight=weight, transform=axes.transAxes
        )


def spread_out(shares: list[float]) -> list[float]:
    """Ascending places at least LABEL_GAP apart, near the given ones and not above 1."""
    places: list[float] = []
    for share in shares:
        places.append(max(share, places[-1] + LABEL_GAP) if places else share)
    bound = 1.0
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], bound)
        bound = places[index] - LABEL_GAP
    return places


def both_logarithmic(axes: Axes, tasks: list[int]) -> None:
    """Logarithmic axes with a tick at every number of tasks."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(tasks, [f"{count:,}" for count in tasks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(tasks[0] / 1.15, tasks[-1] * 1.15)
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def curve(limits: Lines) -> Figure:
    """Three panels over concurrency: throughput beside its limits, latency percentiles, records per sync."""
    points = [line for line in limits if "curve" in line]
    tasks = [point["curve"] for point in points]
    figure = Figure(figsize=(15, 5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(
        tasks, [point["ceiling_per_s"] for point in points], ":", color="#777777", label="asyncio alone (ceiling)"
    )
    left.plot(tasks, [point["limit_per_s"] for point in points], "--", color=LIMIT, label="n / (floor + n / ceiling)")
    left.plot(tasks, [point["records_per_s"] for point in points], "-o", color=OURS, linewidth=2.5, label="walsvc")
    left.set_title("records per second", loc="left")
    for name, share, colour in (("p50", "p50", OURS), ("p99", "p99", "#e67e22"), ("p999", "p99.9", "#7f8c8d")):
        middle.plot(tasks, [point["latency_us"][name] for point in points], "-o", color=colour, label=share)
    middle.plot(
        tasks, [point["floor_us"] for point in points], "--", color=LIMIT, label="floor: one bare durable write"
    )
    middle.set_title("latency of an append", loc="left")
    right.plot(tasks, [point["group_records_mean"] for point in points], "-o", color=OURS, label="mean")
    right.plot(tasks, [point["group_records_max"] for point in points], "-o", color="#e67e22", label="most")
    right.plot(tasks, tasks, "--", color=LIMIT, label="all tasks in one group")
    right.set_title("records that share one sync", loc="left")
    for axes, formatter in ((left, amount), (middle, microseconds), (right, amount)):
        both_logarithmic(axes, tasks)
        axes.yaxis.set_major_formatter(FuncFormatter(formatter))
        axes.set_xlabel("tasks")
        axes.legend(frameon=False)
    return figure


def targets(limits: Lines) -> Figure:
    """Each target's ratio to what it is allowed or asked to be: right of the line is met."""
    judged = [line for line in limits if line.get("ratio") is not None and "target" in line]
    judged.sort(key=lambda line: (int(line["target"][1:].rstrip("abcd")), line["target"]), reverse=True)
    figure = Figure(figsize=(12, 0.38 * len(judged) + 1.4), layout="constrained")
    axes = figure.subplots()
    for row, line in enumerate(judged):
        target = Target(line["target"], line["what"], line["need"], line["at_most"], line["unit"], line["limit_is"])
        middle, low, high = (good(value, line) for value in (held(line), line["ratio"]["low"], line["ratio"]["high"]))
        colour = "#27ae60" if line["met"] else OURS
        axes.barh(row, middle - 1, left=1, color=colour, alpha=0.75, height=0.6)
        axes.plot([low, high], [row, row], color="#333333", linewidth=1.2)
        said = f"{held(line):.2f}, asked {target.says()}"
        axes.text(1.01, row, said, va="center", fontsize=8.5, transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(judged)), [f"{line['what']}   {line['target']}" for line in judged])
    axes.axvline(1, color=LIMIT)
    axes.set_xscale("log")
    axes.set_xlim(0.08, 30)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("How much better than asked (with the range of the rounds; left of the line: not met)", loc="left")
    return figure


def held(line: dict[str, Any]) -> float:
    """What was held against the target: see Verdict."""
    value: float = line["held"]
    return value


def good(ratio: float, line: dict[str, Any]) -> float:
    """How many times better than asked; kept within what can be drawn."""
    value: float = line["need"] / max(ratio, 1e-9) if line["at_most"] else ratio / line["need"]
    return min(max(value, 0.08), 30.0)


def growth(points: Lines) -> Figure:
    """What opening, appending, seeking and memory cost, against length, segments and payload size."""
    axes_of = {
        "length_bytes": ("length of the log", size),
        "segments": ("segments", amount),
        "payload_bytes": ("payload", size),
    }
    rows = (
        ("open_us", "opening", microseconds),
        ("append_us", "append, 1 task", microseconds),
        ("appends_per_s_64", "appends/s, 64 tasks", amount),
        ("seek_us", "seek", microseconds),
        ("memory_bytes", "memory after opening", size),
    )
    figure = Figure(figsize=(13, 13), layout="constrained")
    grid = figure.subplots(len(rows), len(axes_of), squeeze=False)
    for column, (axis, (name, x_format)) in enumerate(axes_of.items()):
        chosen = [point for point in points if point["axis"] == axis]
        for row, (field, title, y_format) in enumerate(rows):
            axes = grid[row][column]
            axes.plot([point["value"] for point in chosen], [point[field] for point in chosen], "-o", color=OURS)
            axes.set_xscale("log")
            scale_growth(axes, [point[field] for point in points], linear=field == "memory_bytes")
            axes.xaxis.set_major_formatter(FuncFormatter(x_format))
            axes.set_xticks([point["value"] for point in chosen])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(y_format))
            axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.7)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(title, loc="left", fontsize=10)
            if row == len(rows) - 1:
                axes.set_xlabel(name)
    return figure


def scale_growth(axes: Axes, values: list[float], *, linear: bool) -> None:
    """The same scale for a whole row, so that its columns can be compared."""
    if linear:
        top = max(*values, 1.0) * 1.3
        axes.set_ylim(0, top)
        axes.yaxis.set_major_locator(MultipleLocator(2.0 ** math.floor(math.log2(top / 2))))
        return
    axes.set_yscale("log")
    bottom, top = math.floor(math.log10(max(min(values), 1))), math.ceil(math.log10(max(*values, 1)))
    axes.set_ylim(10.0**bottom, 10.0 ** max(top, bottom + 1))
    axes.yaxis.set_minor_locator(NullLocator())
