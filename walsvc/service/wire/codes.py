"""Errors of the WalError tree as frames: the name of the class, the message, and the fields. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walsvc import errors
from walsvc.errors import WalError
from walsvc.service.wire.frames import Error, State

NUMBERS = ("segment", "lsn", "offset", "errno")
TEXTS = ("path", "hint")
VALUES = ("expected", "actual")
CODES: dict[str, type[WalError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, WalError)
}


def code_of(error: WalError) -> str:
    """The name of its class, or of the nearest one above that the other side knows."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in CODES)


def error_frame(id: int, error: WalError, state: State) -> Error:
    """An error as a frame. What `expected` and `actual` hold is sent as text where it is neither number nor text."""
    fields: dict[str, Any] = {}
    for name in (*NUMBERS, *TEXTS, *VALUES):
        value = getattr(error, name, None)
        if value is not None:
            fields[name] = value if type(value) in (int, float, bool, str) else str(value)
    return Error(id, code_of(error), error.message, fields, state)


def error_of(code: str, message: str, fields: Mapping[str, Any] | None = None) -> WalError:
    """The error that a frame tells of; a class that is not known here becomes WalError with its name in the message."""
    known: dict[str, Any] = {}
    for name, value in (fields or {}).items():
        right = type(value) is int if name in NUMBERS else type(value) is str if name in TEXTS else name in VALUES
        if right:
            known[name] = value
    number = known.pop("errno", None)
    kind = CODES.get(code)
    if kind is None:
        return WalError(f"{code}: {message}", **known)
    if number is not None and "errno" in kind.__init__.__annotations__:
        known["errno"] = number
    return kind(message, **known)


def farewell_of(code: str, message: str, url: str) -> WalError:
    """The error of a GOODBYE from the server at `url`. GOODBYE has no field for the hint: its message ends with it."""
    message, _, hint = message.partition(". Hint: ")
    error = error_of(code, message)
    error.path, error.hint = url, hint or None
    return error
