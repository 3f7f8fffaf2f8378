"""Opening consumers, which is the same call for every log and every topic, wherever the log is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Literal, TypeVar, Unpack, overload

from walsvc.config import one_of
from walsvc.topics.delivering import Delivering
from walsvc.topics.delivery import Delivery, StrictlyOnce
from walsvc.topics.names import Start
from walsvc.topics.shared import SharedConsumer
from walsvc.topics.sharing import SharedOptions, refuse_options

ConsumerT = TypeVar("ConsumerT", bound=Delivering)


class OpensConsumers(ABC, Generic[ConsumerT]):
    """A log, or a topic, that has consumers; ConsumerT is its kind of exclusive ones."""

    @overload
    async def consumer(
        self,
        name: str,
        delivery: Delivery | type[Delivery] = StrictlyOnce,
        start: Start = "first",
        *,
        shared: Literal[False] = False,
    ) -> ConsumerT: ...
    @overload
    async def consumer(
        self,
        name: str,
        delivery: Delivery | type[Delivery] = StrictlyOnce,
        start: Start = "first",
        *,
        shared: Literal[True],
        **options: Unpack[SharedOptions],
    ) -> SharedConsumer: ...
    async def consumer(
        self,
        name: str,
        delivery: Delivery | type[Delivery] = StrictlyOnce,
        start: Start = "first",
        *,
        shared: bool = False,
        **options: Unpack[SharedOptions],
    ) -> ConsumerT | SharedConsumer:
        """Open the consumer `name` of the topic, or of the whole log, making it if there is none; it exists, durably, until it is
        deleted.

        Args:
            name: 1 to 255 bytes in UTF-8.
            delivery: StrictlyOnce or AtLeastOnce(persist_every=n). A shared consumer is StrictlyOnce.
            start: where a new consumer begins: "first" (all that is there), "next" (only what comes), or an LSN. One that
                exists goes on at its position.
            shared: it is a work queue, which any number of tasks, processes and connections have open at once.
            options: of a shared consumer; those that are left out are as at the last opening. lease: seconds that a worker has a
                record, 0.001 to 604,800 (30.0); None, with `worker=` a name: until it acknowledges it or gives it back.
                max_deliveries: of one record, then it goes to the topic dead_letter ("<topic>.dead"). ordered_by: a label;
                records with an equal value are out one at a time, in order. max_outstanding: records that are out, 1 to 20,000
                (1,000). prefetch: of this opening of a log behind a server, deliveries that the answer to an acknowledgement may
                bring before they are asked for, 0 to 1,000 (0).

        Raises:
            InUse: it is open already; as a shared one: with other options. BadOption: `name`, `start` or an option.
        """
        one_of("shared", shared, (True, False))
        if shared:
            return await self._open_shared(name, delivery, start, options)
        refuse_options(options)
        return await self._open_consumer(name, delivery, start)

    @abstractmethod
    async def _open_consumer(self, name: str, delivery: Delivery | type[Delivery], start: Start) -> ConsumerT: ...

    @abstractmethod
    async def _open_shared(
        self, name: str, delivery: Delivery | type[Delivery], start: Start, options: SharedOptions
    ) -> SharedConsumer: ...
