"""Options of a shared consumer, with their bounds and defaults, and its status."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from walsvc.config import between
from walsvc.errors import BadOption, InUse
from walsvc.log.read.filter import timestamp_of
from walsvc.options import unknown_option
from walsvc.topics.delivery import check_delivery
from walsvc.topics.names import check_name

LEASE_SECONDS = 30.0  # SQS's default visibility timeout, and JetStream's AckWait
LEASE_SECONDS_MAX = 7 * 86_400.0
OUTSTANDING = 1_000  # JetStream's default MaxAckPending
OUTSTANDING_MAX = 20_000  # SQS's limit of messages in flight in a FIFO queue
DELIVERIES_MAX = 1_000_000
DELAY_SECONDS_MAX = 366 * 86_400.0
PREFETCH_MAX = 1_000
NOT_BEFORE = "not_before"  # label: Unix time in microseconds before which shared consumers do not deliver the record


class SharedOptions(TypedDict, total=False):
    """Keyword arguments of `consumer(..., shared=True)`; those that are left out are as at the last opening, but for `worker` and
    `prefetch`, which each opening has for itself."""

    lease: float | None
    max_deliveries: int | None
    dead_letter: str | None
    ordered_by: str | None
    max_outstanding: int
    worker: str
    prefetch: int


OF_AN_OPENING = frozenset({"worker", "prefetch"})


@dataclass(frozen=True, slots=True)
class Sharing:
    """The options that all who open one shared consumer have in common.

    Attributes:
        lease: seconds that a worker has a record before others get it, 0.001 to 604,800; None: until it acknowledges it or gives it
            back, also over restarts.
        max_deliveries: deliveries of one record, at most, 1 to 1,000,000; None: any number.
        dead_letter: topic that gets what was delivered so often; None: none.
        ordered_by: label; records with an equal value are out one at a time, in order.
        max_outstanding: records that are out at a time, 1 to 20,000.
    """

    lease: float | None = LEASE_SECONDS
    max_deliveries: int | None = None
    dead_letter: str | None = None
    ordered_by: str | None = None
    max_outstanding: int = OUTSTANDING

    def packed(self) -> dict[str, Any]:
        """As the log keeps it: what is as by default is left out, but for the first."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: value
            for name, value in values.items()
            if name == "lease" or value != type(self).__dataclass_fields__[name].default
        }


def sharing_of(topic: str | None, given: SharedOptions, kept: Mapping[str, Any]) -> Sharing:
    """The options of a shared consumer from those that are given and those that the log has kept. BadOption."""
    known = {each.name for each in fields(Sharing)}
    values = {name: value for name, value in kept.items() if name in known}
    for name, value in given.items():
        if name in OF_AN_OPENING:
            continue
        if name not in known:
            raise unknown_option(name, known, " of a shared consumer")
        values[name] = value
    prefetch_of(given)
    sharing = Sharing(**values)
    if sharing.lease is not None:
        check_lease("lease", sharing.lease)
    between("max_outstanding", sharing.max_outstanding, 1, OUTSTANDING_MAX)
    if sharing.ordered_by is not None:
        check_name("label", sharing.ordered_by)
    sharing = with_dead_letter(topic, sharing)
    worker = given.get("worker")
    if (worker is None) != (sharing.lease is not None):
        raise BadOption(
            "lease=None and worker= belong together",
            hint='without a lease each worker needs a name that it keeps, worker="host-1"; with one it needs none',
        )
    if worker is not None:
        check_name("worker", worker)
    return sharing


def prefetch_of(given: SharedOptions) -> int:
    """How many deliveries a client may have before a caller asks for them, 0 to 1,000. BadOption."""
    prefetch = given.get("prefetch", 0)
    between("prefetch", prefetch, 0, PREFETCH_MAX)
    if prefetch and given.get("worker") is not None:
        raise BadOption(
            "a worker without a lease has no prefetch",
            hint="leave prefetch out; read_batch takes several records at once",
        )
    return prefetch


def with_dead_letter(topic: str | None, sharing: Sharing) -> Sharing:
    """Add a dead-letter topic wherever deliveries are limited, so that the limit loses no record."""
    if sharing.max_deliveries is None:
        if sharing.dead_letter is not None:
            raise BadOption("dead_letter needs max_deliveries", hint="after how many deliveries? max_deliveries=5, say")
        return sharing
    between("max_deliveries", sharing.max_deliveries, 1, DELIVERIES_MAX)
    if topic is None:
        raise BadOption(
            "a consumer of the whole log cannot have max_deliveries: its dead letters would be delivered to it",
            hint="give the records a topic, and the topic a consumer",
        )
    name = f"{topic}.dead" if sharing.dead_letter is None else sharing.dead_letter
    if check_name("topic", name) == topic:
        raise BadOption(f"topic {topic!r} cannot take the dead letters of its own consumer", hint="name another topic")
    return Sharing(sharing.lease, sharing.max_deliveries, name, sharing.ordered_by, sharing.max_outstanding)


def check_same(name: str, path: str, open_with: Sharing, wanted: Sharing) -> None:
    """Raise InUse where a consumer is open with other options than are wanted."""
    for each in fields(Sharing):
        has, wants = getattr(open_with, each.name), getattr(wanted, each.name)
        if has != wants:
            raise InUse(
                f"consumer {name!r} is open with {each.name}={has!r}",
                path=path,
                expected=f"{each.name}={wants!r}",
                hint="leave the option out to join those that have it open, or close it everywhere first",
            )


def refuse_options(options: SharedOptions) -> None:
    """BadOption for options that only a shared consumer has."""
    if options:
        raise BadOption(f"{next(iter(options))}= is for shared consumers", hint="open it with shared=True")


def refuse_lazy(delivery: object) -> None:
    """BadOption for a shared consumer whose acknowledgements would not be durable when they return."""
    if check_delivery(delivery).persist_every != 1:
        raise BadOption(
            "a shared consumer is StrictlyOnce", hint="leave delivery out; acknowledge several at once instead"
        )


def check_lease(name: str, seconds: float) -> None:
    """BadOption unless it is a number of seconds for which a worker may have a record."""
    between(name, seconds, 0.001, LEASE_SECONDS_MAX)


def check_delay(name: str, seconds: float) -> None:
    """BadOption unless it is a number of seconds from 0 to a year."""
    between(name, seconds, 0.0, DELAY_SECONDS_MAX)


def with_not_before(
    attributes: Mapping[str, Any] | None, not_before: datetime.datetime | float | None
) -> Mapping[str, Any] | None:
    """Attributes of a record that is not to be delivered before a time: an aware datetime, or Unix seconds."""
    if not_before is None:
        return attributes
    if isinstance(not_before, (int, float)):
        between("not_before", not_before, 0.0, 253_402_300_799.0)  # the end of year 9999
        micros = int(not_before * 1_000_000)
    else:
        micros = timestamp_of("not_before", not_before) // 1_000
    return {**(attributes or {}), NOT_BEFORE: micros}
