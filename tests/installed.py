"""Packages that only some tests need: each test process collects all tests, and imports those packages where it runs one."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def needs(package: str) -> None:
    """Skip the module that calls it unless a package is installed, which is not imported."""
    try:
        found = find_spec(package)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"{package} is not installed (walsvc[dev])", allow_module_level=True)
