"""crc32c, from the extension of the package `crc32c`, on the CPU's instruction.

The package's own `__init__` also imports its command line and reads its version from its metadata, and with that argparse, email,
zipfile and 30 modules more: a quarter of the time that walsvc takes to import. So the extension is loaded by itself, where it
stands where it is known to stand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any, cast

Crc32c = Callable[..., int]
EXTENSION = "crc32c._crc32c"


def load() -> Crc32c:
    """The function `crc32c(data, value=0)`."""
    package = None if "crc32c" in sys.modules else PathFinder.find_spec("crc32c")
    places = None if package is None else package.submodule_search_locations
    spec = PathFinder.find_spec(EXTENSION, places) if places else None
    if spec is not None and spec.loader is not None:
        module: Any = module_from_spec(spec)
        spec.loader.exec_module(module)
        if callable(found := getattr(module, "crc32c", None)):
            return cast(Crc32c, found)
    from crc32c import crc32c as whole

    return cast(Crc32c, whole)


crc32c: Crc32c = load()
