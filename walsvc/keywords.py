"""The keywords of the calls that append: a type checker, help() and a mock with a specification see each of them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from walsvc.model import Entry

if TYPE_CHECKING:
    from datetime import datetime

Payload = bytes | bytearray | memoryview
Payloads = Iterable[Payload | Entry] | AsyncIterable[Payload | Entry]
Call = TypeVar("Call", bound=Callable[..., Any])


class BatchOptions(TypedDict, total=False):
    """Keywords of `append_batch`; what is left out is None.

    Attributes:
        expected: LSN with which the log, or the topic, must end when the call is accepted, 0 where it has no visible record: Conflict
            where it ends with another one. Of several calls that expect the same LSN exactly one is accepted. None: any.
    """

    expected: int | None


class AppendOptions(BatchOptions, total=False):
    """Keywords of `append` and `append_nowait`, beside mode, type and attributes; what is left out is None.

    Attributes:
        expected: as of BatchOptions.
        dedupe: the caller's own key of the record, text of 1 to 1,024 bytes in UTF-8. Where the topic (or the records without a topic)
            had the key before, and the log remembers it (dedupe_records, dedupe_seconds, dedupe_bytes), the call writes nothing and
            does not ask `expected`: it gets the answer of the first one, whose payload counts, with `duplicate` True.
    """

    dedupe: str | None


class TopicAppendOptions(AppendOptions, total=False):
    """Keywords of a topic's `append` and `append_nowait`, beside mode, type and attributes; what is left out is None.

    Attributes:
        expected, dedupe: as of AppendOptions, for the topic.
        not_before: an aware datetime, or Unix seconds, before which no shared consumer delivers the record. It becomes the label
            "not_before", in microseconds.
    """

    not_before: datetime | float | None


def spelled_out(options: type) -> Callable[[Call], Call]:
    """Show the keywords of `**options` one by one in the signature of a call: help() lists them, and a mock that is made of the call
    refuses others. The call itself refuses them by `check_keywords`."""

    def spell(call: Call) -> Call:
        shown = signature(call)
        fixed = [each for each in shown.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
        for name, kind in options.__annotations__.items():
            annotation = getattr(kind, "__forward_arg__", kind)
            fixed.append(Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
        vars(call)["__signature__"] = shown.replace(parameters=fixed)
        return call

    return spell


def check_keywords(call: Callable[..., Any], given: Mapping[str, Any], options: type) -> None:
    """Raise TypeError for a keyword that is none of `options`, as Python does for a call that names its keywords."""
    for name in given:
        if name not in options.__annotations__:
            raise unexpected_keyword(call, name)


def unexpected_keyword(call: Callable[..., Any], name: str) -> TypeError:
    """The error for a keyword that a call does not take: with the one that was probably meant."""
    parameters = signature(call).parameters.values()
    known = [each.name for each in parameters if each.kind is not Parameter.VAR_KEYWORD and each.name != "self"]
    return TypeError(f"{call.__name__}() got an unexpected keyword argument {name!r}; {meant(name, known)}")


def meant(name: str, known: Sequence[str]) -> str:
    """The keyword that is most like `name`, or else all that there are, in words."""
    from difflib import get_close_matches

    nearest = get_close_matches(name, known, 1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
