"""When an acknowledgement is durable."""

from __future__ import annotations

from dataclasses import dataclass

from walsvc.config import between
from walsvc.errors import BadOption


@dataclass(frozen=True, slots=True)
class StrictlyOnce:
    """Every acknowledgement is durable before `ack` returns: what was acknowledged is never delivered again.

    The sync is shared with whatever else is appended, so acknowledging beside appends costs none of its own.
    """

    @property
    def persist_every(self) -> int:
        """Records that may be acknowledged and not yet durable, plus one."""
        return 1


@dataclass(frozen=True, slots=True)
class AtLeastOnce:
    """After a crash at most `persist_every` acknowledged records are delivered again (1 to 1e9); `ack` rarely waits.

    Acknowledgements in between go along with the next commit, or within relaxed_interval.
    """

    persist_every: int = 100

    def __post_init__(self) -> None:
        between("persist_every", self.persist_every, 1, 1_000_000_000)


Delivery = StrictlyOnce | AtLeastOnce


def check_delivery(delivery: object) -> Delivery:
    """The delivery meant by a class or an object of one; BadOption for anything else."""
    if delivery is StrictlyOnce or delivery is AtLeastOnce:
        return delivery()
    if isinstance(delivery, (StrictlyOnce, AtLeastOnce)):
        return delivery
    raise BadOption(
        f"delivery={delivery!r} is not known", hint="walsvc.StrictlyOnce or walsvc.AtLeastOnce(persist_every=n)"
    )
