"""The audit: a line for each call that needs the right admin, on logger `walsvc.audit`: who, where, what, and what became of it."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from walsvc.errors import WalError
from walsvc.service.wire.codes import code_of
from walsvc.service.wire.methods import ADMIN, METHODS
from walsvc.visible import visible

logger: logging.Logger = logging.getLogger("walsvc.audit")
SHOWN = 500  # characters of the arguments


@contextlib.contextmanager
def audited(who: str, path: str, name: str, args: Mapping[str, Any]) -> Iterator[None]:
    """Say what becomes of a call, if it is one that needs the right admin.

    Args:
        who: token, client and place of whoever calls.
        path: of the log.
        name: of the method.
        args: its arguments.
    """
    method = METHODS.get(name)
    if method is None or method.right != ADMIN:
        yield
        return
    outcome = "given up by the client; it may have been done"
    try:
        yield
        outcome = "done"
    except WalError as error:
        outcome = f"{code_of(error)}: {error.message}"
        raise
    finally:
        said = json.dumps(dict(args), default=repr)[:SHOWN]
        logger.info("%s", visible(f"{who}: {name} {said} on {path}: {outcome}"))
