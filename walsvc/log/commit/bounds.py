"""Bounds: how long the payloads and the batches of a log may be."""

from __future__ import annotations

from typing import Any

from walsvc.config import WalConfig
from walsvc.errors import RecordTooLarge
from walsvc.log.commit.payload import to_bytes


class Bounds:
    """The bounds of one log.

    Attributes:
        record_bytes_max: of a payload.
        group_bytes_max, group_records_max: of what fits one group.
    """

    def __init__(self, config: WalConfig, path: str) -> None:
        self.group_bytes_max: int = config.max_group_bytes
        self.group_records_max: int = config.max_group_records
        self.record_bytes_max: int = config.max_record_bytes
        self._batch_bytes_max = config.max_batch_bytes
        self._path = path

    def checked(self, payload: Any) -> bytes:
        """A payload as bytes of our own. Raises BadPayload, RecordTooLarge."""
        piece = to_bytes(payload)
        self.check_length(len(piece))
        return piece

    def check_length(self, length: int) -> None:
        """RecordTooLarge for a payload over max_record_bytes."""
        if length > self.record_bytes_max:
            raise RecordTooLarge(
                f"the payload has {length} bytes, the limit is {self.record_bytes_max}",
                path=self._path,
                hint="split it, or open the log with a larger max_record_bytes",
            )

    def check_batch(self, length: int) -> None:
        """RecordTooLarge for a batch whose payloads and attributes are over max_batch_bytes."""
        if length > self._batch_bytes_max:
            raise RecordTooLarge(
                f"the batch has more than {self._batch_bytes_max} bytes",
                path=self._path,
                hint="nothing of it was kept; split it, or open the log with a larger max_batch_bytes",
            )
