"""Only what pyproject.toml cannot say: extensions, which are optional, and where a released package's links lead.

Without a C compiler or the headers the package installs without them: it uses its `threads` disk for io_uring's, and its
commit path in Python for the one in C.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent
PACKAGES = {"liburing.h": "liburing-dev", "Python.h": "python3-dev"}


def obstacle(*headers: str) -> str | None:
    """Why an extension cannot be built that includes these headers, by trying to compile them; None when it can."""
    if sys.implementation.name != "cpython":
        return "it is written for CPython"
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    if shutil.which(compiler[0]) is None:
        return f"no C compiler ({compiler[0]})"
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "try.c"), Path(folder, "try.o")
        include = sysconfig.get_paths()["include"]
        for header in headers:
            source.write_text(f"#include <{header}>\n")
            command = [*compiler, f"-I{include}", "-c", "-o", str(made), str(source)]
            if subprocess.run(command, capture_output=True, check=False).returncode != 0:
                return f"no {header} ({PACKAGES[header]})"
    return None


def links() -> dict[str, object]:
    """The README for the package index, and the project's addresses: WALSVC_REPOSITORY names the repository, and a release sets it.

    A README's relative links lead nowhere on a package index.
    """
    text, repository = (HERE / "README.md").read_text(encoding="utf-8"), os.environ.get("WALSVC_REPOSITORY", "")
    urls: dict[str, str] = {}
    if repository:
        text = re.sub(r"\]\((?!https?://|#)", f"]({repository}/blob/main/", text)
        urls = {"Source": repository, "Issues": f"{repository}/issues"}
        urls |= {"Documentation": f"{repository}/tree/main/docs", "Changelog": f"{repository}/blob/main/CHANGELOG.md"}
    return {"long_description": text, "long_description_content_type": "text/markdown", "project_urls": urls}


def main() -> None:
    """Build with the extensions that can be built; say in one line each what is left out and what that means."""
    extras = links()
    linux = sys.platform.startswith("linux")
    if (missing := obstacle("Python.h", "liburing.h") if linux else "io_uring is Linux's") is None:
        extras["cffi_modules"] = [str(Path("walsvc", "disk", "uring_build.py")) + ":ffibuilder"]
    else:
        print(f"walsvc: io_uring extension not built: {missing}; the threads disk will be used", file=sys.stderr)
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
    if (reason := "free-threaded Python" if free_threaded else obstacle("Python.h")) is None:
        folder = Path("walsvc", "log", "commit")
        extras["ext_modules"] = [
            Extension(
                f"walsvc.log.commit.{sources[0]}",
                [str(folder / f"{source}.c") for source in sources],
                depends=[str(header) for header in folder.glob("*.h")],
                optional=True,
            )
            for sources in (
                ("_ack", "_awaiting", "_callbacks", "_result", "_settling", "_waker", "_wakeup"),
                ("_intake",),
                ("_encode",),
            )
        ]
    elif reason != missing:  # one line for one obstacle
        print(f"walsvc: commit path in C not built: {reason}; the one in Python will be used", file=sys.stderr)
    setup(**extras)


os.chdir(HERE)  # cffi_modules are relative to the project
main()
