"""Only what pyproject.toml cannot say: the io_uring extension, which is optional.

Without a C compiler or liburing.h the package installs without it and uses its `threads` disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent


def obstacle() -> str | None:
    """Why the extension cannot be built, by trying to compile its headers; None when it can."""
    if not sys.platform.startswith("linux"):
        return "io_uring is Linux's"
    if sys.implementation.name != "cpython":
        return "the limited API is CPython's"
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    if shutil.which(compiler[0]) is None:
        return f"no C compiler ({compiler[0]})"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "try.c")
        include = sysconfig.get_paths()["include"]
        for header, what in (("liburing.h", "no liburing.h (liburing-dev)"), ("Python.h", "no Python.h (python3-dev)")):
            source.write_text(f"#include <{header}>\n")
            command = [*compiler, f"-I{include}", "-fsyntax-only", str(source)]
            if subprocess.run(command, capture_output=True, check=False).returncode != 0:
                return what
    return None


def main() -> None:
    """Build with the extension where that is possible, else say in one line that it is left out."""
    reason = obstacle()
    if reason is not None:
        print(f"walsvc: io_uring extension not built: {reason}; the threads disk will be used", file=sys.stderr)
        setup()
        return
    setup(
        cffi_modules=[str(Path("walsvc", "disk", "uring_build.py")) + ":ffibuilder"],
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )


os.chdir(HERE)  # cffi_modules are relative to the project
main()
