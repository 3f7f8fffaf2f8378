"""The status page in a real browser: headless Chromium, with data moving under it.

The server and its logs run on a loop of their own in a thread, as the browser is driven from this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import itertools
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.service.watching import COPIES, FULL, Stub
from walsvc.disk import threads
from walsvc.service.ops.http import HttpSide
from walsvc.service.ops.page import PAGE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
if importlib.util.find_spec("playwright") is None:
    WHY_NOT = "playwright is not installed"
else:
    WHY_NOT = "" if CHROMIUM else "no chromium here: apt-get install chromium"
needs_browser = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "it is there")

ATTACK = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 380, "height": 800}


def expect(what: Any) -> Any:
    """playwright's, which takes long to import: not in each process that only collects the tests."""
    from playwright.sync_api import expect as of_playwright

    return of_playwright(what)


class Server:
    """A log, a server's stand-in and its HTTP side on a loop in a thread."""

    def __init__(self, directory: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.stack = contextlib.AsyncExitStack()
        self.run(self._start(directory))

    async def _start(self, directory: Path) -> None:
        self.log = await self.stack.enter_async_context(walsvc.open(directory, disk="threads", segment_bytes=65536))
        self.source = Stub(root=self.log)
        self.side = await self.stack.enter_async_context(HttpSide(self.source, port=0))

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def append(self, count: int, topic: str = "orders") -> None:
        async def work() -> None:
            await self.log.topic(topic).append_batch([b"x" * 100] * count)

        self.run(work())

    def close(self) -> None:
        self.run(self.stack.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "log")
    yield server
    server.close()


@pytest.fixture(scope="module")
def browser():
    """One for all tests here. As long as it is there, this thread has a running loop: no test here may run one of its own."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=100_000)  # the machine may be busy with the rest of the suite
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(server, browser):
    """Opens the page, each time without a memory; complaints of the browser, and requests to anybody else, fail the test."""
    asked, complaints, pages = [], [], []

    def open_page(**options):
        page = browser.new_page(viewport=options.pop("viewport", WIDE), **options)
        pages.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.side.url)
        expect(page.locator("#state")).not_to_have_text("connecting")
        return page

    open_page.complaints = complaints
    yield open_page
    for page in pages:
        page.close()
    elsewhere = [url for url in asked if not url.startswith((server.side.url, "data:"))]
    assert not elsewhere, "the page asks for nothing from elsewhere"
    assert not complaints


@needs_browser
def test_figures_move_with_the_data(server, open_page):
    consumer = server.run(server.log.topic("orders").consumer("billing"))
    page = open_page()
    expect(page.locator("#state")).to_have_text("ready")
    for unused in ("#namespaces", "#alert", "#copies-card", "#no-log", "#needs-none"):
        expect(page.locator(unused)).to_be_hidden()
    expect(page.locator("#durable")).to_have_text("0")
    server.append(5)
    expect(page.locator("#durable")).to_have_text("5")
    server.append(1000)
    expect(page.locator("#durable")).to_have_text("1,005")
    row = page.locator("#needs tbody tr")
    expect(row.locator("td").nth(3)).to_have_text("1,005")
    expect(row.locator("td").nth(4)).to_have_text("0000000000000001.wal")
    expect(row.locator("td").nth(4)).to_have_attribute("data-tag", "oldest")

    feeding = threading.Event()

    async def feed() -> None:
        while not feeding.is_set():
            await server.log.topic("orders").append(b"y" * 100)

    going = asyncio.run_coroutine_threadsafe(feed(), server.loop)
    expect(page.locator("#rate")).to_have_text(re.compile(r"^[1-9][\d,.]*[KM]?$"))
    expect(page.locator("#p50")).to_have_text(re.compile(r"^[\d.]+ (µs|ms|s)$"))
    expect(page.locator("#group")).to_have_text(re.compile(r"^[\d.]+$"))
    first = page.locator("#durable").text_content()
    expect(page.locator("#durable")).not_to_have_text(first)
    line = page.locator("#spark-line").get_attribute("d")
    expect(page.locator("#spark-line")).not_to_have_attribute("d", line)
    assert page.locator("#bars .bar i").evaluate_all("bars => bars.some(bar => bar.offsetHeight > 20)")
    feeding.set()
    going.result(60)
    last = server.log.durable_lsn
    expect(page.locator("#durable")).to_have_text(f"{last:,}")

    async def consume() -> None:
        for _ in range(1000):
            record = await consumer.next()
        await consumer.ack(record.lsn)

    server.run(consume())
    expect(row.locator("td").nth(2)).to_have_text("1,001")
    expect(row.locator("td").nth(3)).to_have_text(f"{last - 1000:,}")
    workers = server.run(server.log.topic("orders").consumer("workers", shared=True))
    server.run(workers.next())
    expect(page.locator("#needs tbody tr", has_text="workers").locator("td").last).to_have_text(
        re.compile("^1 out, oldest ")
    )
    server.run(workers.close())
    server.source.tell(**FULL, copies={"": COPIES})
    expect(page.locator("#copies tbody tr")).to_have_count(2)
    expect(page.locator("#copies")).to_contain_text("catching up")
    expect(page.locator("#server")).to_contain_text("12 of at most 1,024")
    server.run(consumer.close())


@needs_browser
def test_names_are_text_and_fit(server, open_page):
    names = [ATTACK, "x" * 255, "ünï\u202ecode \t"]

    async def fill() -> None:
        for name in names:
            await (await server.log.topic(name).consumer(name)).close()
            await server.log.hold(name, 1)
            await server.log.topic(name).append(b"x")
        server.source.logs[ATTACK] = server.log
        copies = {"": {ATTACK: COPIES["archive"]}}
        server.source.tell(rejected={ATTACK: 1}, errors={ATTACK: 1}, listeners=(ATTACK,), copies=copies)

    server.run(fill())
    for viewport, scheme in itertools.product((WIDE, NARROW), ("light", "dark")):
        page = open_page(viewport=viewport, color_scheme=scheme)
        expect(page.locator("#needs tbody tr")).to_have_count(6)
        assert set(page.locator("#needs tbody tr td:nth-child(1)").all_text_contents()) == set(names)
        expect(page.locator("#server")).to_contain_text(ATTACK)
        expect(page.locator("#copies")).to_contain_text(ATTACK)
        expect(page.locator("#namespaces button").nth(1)).to_have_text(ATTACK)
        page.locator("#namespaces button").nth(1).click()
        expect(page.locator("#namespaces button").nth(1)).to_have_attribute("aria-pressed", "true")
        assert page.evaluate("window.pwned") is None
        assert page.locator("img, #main script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
            f"{viewport} scrolls sideways"
        )
        colors = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        text, back = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
        assert (text > back) == (scheme == "dark")
        assert abs(text - back) > 350, "hard to read"
        page.close()


@needs_browser
def test_even_markup_would_not_run(server, open_page):
    page = open_page()
    page.evaluate(
        """markup => new Promise(done => {
            document.addEventListener("securitypolicyviolation", event => done(event.violatedDirective));
            document.getElementById("main").innerHTML = markup;
        })""",
        "<img src=/x onerror='window.pwned=1'>",
    )
    assert page.evaluate("window.pwned") is None
    assert any("Content Security Policy" in text for text in open_page.complaints)
    page.close()
    open_page.complaints.clear()


@needs_browser
def test_a_failed_log_and_a_silent_server_are_said_plainly(server, open_page, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    server.append(3)
    page = open_page()
    expect(page.locator("#durable")).to_have_text("3")
    expect(page.locator("#alert")).to_be_hidden()
    monkeypatch.setattr(threads, "write_durably", fail)
    with pytest.raises(walsvc.DurabilityLost):
        server.append(1)
    expect(page.locator("#state")).to_have_text("not ready")
    expect(page.locator("#alert")).to_contain_text("has failed: a write or its sync failed")
    expect(page.locator("#alert")).to_contain_text("until it is opened again")
    expect(page.locator("#durable")).to_have_text("3")
    server.run(server.side.stop())
    expect(page.locator("#state")).to_have_text("no answer")
    expect(page.locator("#alert")).to_contain_text("does not answer")
    assert page.title() == "no answer – walsvc"
    expect(page.locator("#main")).to_have_class("stale")
    assert any("ERR_" in text for text in open_page.complaints)
    open_page.complaints.clear()
    page.close()


def test_the_page_is_one_document_without_assets():
    text = PAGE.decode()
    assert "/*style*/" not in text
    assert "/*script*/" not in text
    assert text.count("<script") == text.count("<style") == 1
    addresses = set(re.findall(r"""(?:src|href)=["']([^"']+)""", text))
    assert {address.partition(":")[0] for address in addresses} <= {"data", "/metrics", "/status"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|@import|url\(", text)
    assert len(PAGE) < 40_000
