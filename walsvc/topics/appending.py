"""TakesTopicRecords: the calls that append to a topic, which are the same for every topic, wherever its log is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Unpack

from walsvc.keywords import AppendOptions, Payload, TopicAppendOptions, check_keywords, spelled_out
from walsvc.log.commit.ack import Ack
from walsvc.log.commit.appending import TakesRecords
from walsvc.log.commit.payload import NO_TYPE
from walsvc.model import AppendResult, Mode, Strict
from walsvc.topics.sharing import with_not_before


class TakesTopicRecords(TakesRecords):
    """A topic, as the programs see it that append to it."""

    @spelled_out(TopicAppendOptions)
    def append(
        self,
        payload: Payload,
        mode: Mode = Strict,
        type: int = NO_TYPE,
        attributes: Mapping[str, Any] | None = None,
        **options: Unpack[TopicAppendOptions],
    ) -> Ack[AppendResult]:
        """Append one record to the topic; see Log.append.

        Args:
            expected: LSN of the topic's last record, 0 where it has none that is visible: Conflict where it ends with another one.
            dedupe: the caller's own key of the record; each topic has its own keys.
            not_before: an aware datetime, or Unix seconds, before which no shared consumer delivers the record. It becomes the
                label "not_before", in microseconds.
        """
        if options:
            check_keywords(TakesTopicRecords.append, options, TopicAppendOptions)
            attributes = with_not_before(attributes, options.pop("not_before", None))
        others: AppendOptions = options
        return super().append(payload, mode, type, attributes, **others)

    @spelled_out(TopicAppendOptions)
    def append_nowait(
        self,
        payload: Payload,
        mode: Mode = Strict,
        type: int = NO_TYPE,
        attributes: Mapping[str, Any] | None = None,
        **options: Unpack[TopicAppendOptions],
    ) -> asyncio.Future[AppendResult]:
        """Like append, but raises Backpressure (or NoSpace) where append would have to wait for room."""
        if options:
            check_keywords(TakesTopicRecords.append_nowait, options, TopicAppendOptions)
            attributes = with_not_before(attributes, options.pop("not_before", None))
        others: AppendOptions = options
        return super().append_nowait(payload, mode, type, attributes, **others)
