"""Options from text and by name: what a URL's query, the environment and `--set` mean, and what is said of an unknown name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from walsvc.errors import BadOption, PathError

BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
NUMBERS: dict[str, type[int] | type[float]] = {"int": int, "float": float}


def kinds_of(field: Any) -> list[str]:
    """The types that an option may have, as written in its class: "int | None" is "int" and "None", a Literal is "str"."""
    kinds = [each.strip() for each in str(field.type).split("|")]
    return ["str" if each == "DiskKind" or each.startswith("Literal[") else each for each in kinds]  # one of some words


def option_of(field: Any, text: str, where: str) -> Any:
    """The value of an option that is written as text.

    Args:
        field: of the dataclass that has the option; its type says how the text is read. Bounds are the class's to check.
        text: as it stands there. Empty: None, where the option may be None.
        where: in which place, for the error.

    Raises:
        BadOption: the text is no value of the type.
    """
    kinds = kinds_of(field)
    if text == "" and "None" in kinds:
        return None
    if "bool" in kinds:
        if text.lower() in BOOLEANS:
            return BOOLEANS[text.lower()]
        raise BadOption(f"{field.name} in {where} is {text!r}", expected="true or false")
    for kind, make in NUMBERS.items():
        if kind in kinds:
            try:
                return make(text)
            except ValueError:
                raise BadOption(f"{field.name} in {where} is {text!r}", expected=f"a number ({kind})") from None
    return text.split(",") if kinds[0].startswith("Sequence") else text


def options_of(pairs: Iterable[tuple[str, str]], known: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of options that are written as names and texts. BadOption also for a name that is unknown, or there twice."""
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name not in known:
            raise unknown_option(name, known, f" in {where}")
        if name in found:
            raise BadOption(f"{name} is there twice in {where}", hint="leave one of them out")
        found[name] = option_of(known[name], text, where)
    return found


def unknown_option(name: str, known: Iterable[str], where: str = "", what: str = "option") -> BadOption:
    """The error for an option that there is not: with the one that was probably meant, and all that there are."""
    from difflib import get_close_matches

    names = sorted(known)
    nearest = get_close_matches(name, names, 1)
    meant = f"{nearest[0]}? " if nearest else ""
    return BadOption(f"unknown {what} {name!r}{where}", hint=f"{meant}known: {', '.join(names)}")


def check_type(name: str, value: object, *kinds: type) -> None:
    """BadOption unless `value` is of one of the kinds, or None."""
    if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise BadOption(f"{name} is {type(value).__name__}", expected=expected)


def file_of(name: str, value: object) -> str:
    """The path that an option holds, as text. BadOption for what no file can be called."""
    if not isinstance(value, (str, os.PathLike)):
        raise BadOption(f"{name} must be a path, not {type(value).__name__}")
    text = os.fsdecode(value)
    if not text or "\0" in text or not encodable(text):
        raise BadOption(f"{name}={text!r} is no path of a file", hint="check how the path was built")
    return text


def unreadable(what: str, setting: str, path: str, error: OSError) -> PathError:
    """The error for a file that cannot be read, which a setting names: `what` it is, and the setting's name."""
    return PathError(
        f"the {what} file cannot be read: {error.strerror}",
        path=path,
        errno=error.errno,
        hint=f"check --{setting.replace('_', '-')} or WALSVC_{setting.upper()}, and the owner and mode of the file",
    )


def encodable(text: str) -> bool:
    """True if a path can be given to the operating system: a lone surrogate cannot, a byte that is no UTF-8 can."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def is_utf8(text: str) -> bool:
    """True if text can be sent: what the environment or the command line holds need not be UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
