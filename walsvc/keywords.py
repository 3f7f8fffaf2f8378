"""The keywords of the calls that take many: of those that append, and of `walsvc.open` for each kind of target.

A type checker, help() and a mock with a specification see each of them. A test holds those of `walsvc.open` against the classes that
check them, and say what each means: WalConfig, ClientConfig and JetStreamOptions.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from inspect import Parameter, signature
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from walsvc.model import Entry

if TYPE_CHECKING:
    from datetime import datetime
    from ssl import SSLContext

    from walsvc.config import DiskKind
    from walsvc.keyring import KeyRing

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


class CommonOptions(TypedDict, total=False):
    """Options of a log that this process writes itself, wherever its bytes go."""

    block_bytes: int | None
    segment_bytes: int
    max_record_bytes: int
    max_group_bytes: int
    max_group_records: int
    max_batch_bytes: int
    max_pending_bytes: int
    commit_delay: float
    relaxed_interval: float | None
    reclaim: Literal["manual", "consumed"]
    retain_bytes: int | None
    retain_seconds: float | None
    slow_sync_seconds: float | None
    dedupe_records: int
    dedupe_seconds: float
    dedupe_bytes: int
    keys: KeyRing | None


class LogOptions(CommonOptions, total=False):
    """Options of a log in a directory, but for `read_only`; see WalConfig."""

    disk: DiskKind
    direct: bool | None
    layout: Literal["pad", "pack"]
    double_write: Literal["off", "buffered", "direct"]
    namespace: str | None
    reading: Literal["direct", "mapped"]
    replicate: str | None


class ClientOptions(TypedDict, total=False):
    """Options of a log behind a server (unix://, wal://, wals://); see ClientConfig."""

    namespace: str | None
    token_file: str | PathLike[str] | None
    ca: str | PathLike[str] | None
    cert: str | PathLike[str] | None
    key: str | PathLike[str] | None
    server_name: str | None
    timeout: float | None
    connect_seconds: float
    open_seconds: float
    reconnect_seconds: float
    backoff_seconds: float
    backoff_max_seconds: float
    max_pending_bytes: int
    read_ahead_bytes: int
    read_only: bool
    insecure: bool
    name: str | None


class StreamOptions(CommonOptions, total=False):
    """Options of a log in JetStream (nats://, tls://); see JetStreamOptions and docs/ENGINES.md."""

    read_only: bool
    replicas: int
    allow_unsynced: bool
    monitor: Sequence[str] | str | None
    system_user: str | None
    system_password: str | None
    system_credentials: str | None
    credentials: str | None
    token: str | None
    ca: str | PathLike[str] | None
    cert: str | PathLike[str] | None
    key: str | PathLike[str] | None
    server_name: str | None
    tls: SSLContext | None
    timeout: float


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
    from difflib import get_close_matches

    parameters = signature(call).parameters.values()
    known = [each.name for each in parameters if each.kind is not Parameter.VAR_KEYWORD and each.name != "self"]
    nearest = get_close_matches(name, known, 1)
    meant = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    return TypeError(f"{call.__name__}() got an unexpected keyword argument {name!r}; {meant}")
