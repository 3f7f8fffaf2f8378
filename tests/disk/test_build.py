"""The io_uring extension is optional: installing without it works and says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import walsvc.disk
from walsvc.disk import ring

PROJECT = Path(walsvc.disk.__file__).resolve().parents[2]


@pytest.mark.skipif(not (PROJECT / "setup.py").exists(), reason="installed without its sources")
def test_no_compiler_is_one_clear_line_and_no_failure():
    environment = {**os.environ, "CC": "/nonexistent/compiler"}
    done = subprocess.run(
        [sys.executable, str(PROJECT / "setup.py"), "--name"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "walsvc" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("walsvc:")]
    assert lines == [
        "walsvc: io_uring extension not built: no C compiler (/nonexistent/compiler); the threads disk will be used"
    ]


@pytest.mark.skipif(not ring.extension_built(), reason="the extension was not built")
def test_extension_is_one_binary_for_every_python():
    from walsvc.disk import _uring  # type: ignore[attr-defined]

    assert _uring.__file__.endswith(".abi3.so")
    libraries = Path(f"/proc/{os.getpid()}/maps").read_text(encoding="utf-8")
    assert "_uring.abi3.so" in libraries
    assert "liburing.so" not in libraries or not any(
        (Path(directory) / "liburing.a").exists()
        for directory in ("/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib")
    )
