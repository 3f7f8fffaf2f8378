"""The copies of a served log elsewhere: the archive that the server feeds, and how far archive and replica are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from walsvc.api import Log
from walsvc.service.server.status import Copy, Trouble

if TYPE_CHECKING:
    from walsvc.engines.archive import Archiver


class Copying:
    """Archives one log as long as the server has it open.

    Args:
        archive: URL; None: nothing is archived.
    """

    def __init__(self, archive: str | None) -> None:
        self._url = archive
        self._archiver: Archiver | None = None

    async def start(self, log: Log) -> None:
        """Begin with an open log. Raises BadOption where obstore is missing or does not know the URL."""
        if self._url is None:
            return
        from walsvc.engines.archive import Archive, Archiver

        archiver = Archiver(log, Archive.at(self._url))
        await archiver.__aenter__()
        self._archiver = archiver

    async def stop(self) -> None:
        """End before the log is closed. Idempotent."""
        archiver, self._archiver = self._archiver, None
        if archiver is not None:
            await archiver.__aexit__()

    def status(self, logs: Mapping[str, Log]) -> dict[str, dict[str, Copy]]:
        """By namespace, what there is of "archive" and "replication"; see walsvc.service.ops.status."""
        found: dict[str, dict[str, Copy]] = {}
        for name, log in logs.items():
            if log.writer.core.replicated is not None:
                found.setdefault(name, {})["replication"] = replica_copy(log)
            if self._archiver is not None:
                found.setdefault(name, {})["archive"] = archive_copy(log, self._archiver)
        return found

    def troubles(self, logs: Mapping[str, Log]) -> Iterator[Trouble]:
        """The archiver that has stopped, and the replicas to which nothing is shipped any more. A store or a replica that is
        tried again is no trouble of the server: its lag says how it is."""
        archiver = self._archiver
        if archiver is not None and archiver.state == "stopped" and archiver.error is not None:
            yield Trouble("archive", "", "archiving has stopped", archiver.error)
        for name, log in logs.items():
            replicated = log.writer.core.replicated
            if replicated is not None and replicated.ended is not None:
                words = f"replication of namespace {name!r} has ended" if name else "replication has ended"
                yield Trouble("replication", name, words, replicated.ended)


def end_waiting(log: Log, *, only_down: bool) -> None:
    """The server stops: who waits for the replica is told that nobody waits any more; `only_down`: if it is down."""
    replicated = log.writer.core.replicated
    if replicated is not None and (replicated.down or not only_down):
        replicated.dismiss()


def replica_copy(log: Log) -> Copy:
    """The progress of the replica."""
    replicated = log.writer.core.replicated
    assert replicated is not None, "asked only where there is one"
    behind = max(log.durable_lsn - replicated.lsn, 0)
    return Copy(replicated.lsn, behind, replicated.behind_bytes(), replicated.state)


def archive_copy(log: Log, archiver: Archiver) -> Copy:
    """The progress of the archive. The active segment is archived once it is sealed, so something is always behind."""
    size = sum(bytes for first, bytes in log.writer.view.sizes.items() if first >= archiver.archived_lsn)
    state = archiver.state if archiver.error is None else f"{archiver.state}: {archiver.error.message}"
    return Copy(archiver.archived_lsn - 1, archiver.behind, size, state)
