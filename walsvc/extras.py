"""Extras: which of them brings a package, and the one line that names it where the package is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from walsvc.errors import BadOption

EXTRAS = {
    "typer": "cli",
    "rich": "cli",
    "cryptography": "crypto",
    "aiohttp": "service",
    "prometheus_client": "service",
    "nats": "nats",
    "obstore": "archive",
    "uvloop": "uvloop",
    "hiredis": "redis",
    "opentelemetry": "otel",
}
"""The extra of pyproject.toml that has a module."""


def missing(module: str, what: str) -> BadOption:
    """The error of `what`, which needs a module that is not installed."""
    return BadOption(f"{what} needs {module}, which is not installed", hint=f"pip install 'walsvc[{EXTRAS[module]}]'")


def installed(module: str) -> bool:
    """True if a module can be imported, by its files only: nothing is run."""
    try:
        return (module in sys.modules and sys.modules[module] is not None) or find_spec(module) is not None
    except ImportError:
        return False


def need(module: str, what: str) -> None:
    """Raise BadOption unless a module of an extra is installed; `what` is the part of walsvc that needs it."""
    if not installed(module):
        raise missing(module, what)
