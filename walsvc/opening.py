"""`walsvc.open`: from a directory or a URL to an open log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from typing import Any

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.disk.choose import open_disk
from walsvc.errors import BadOption
from walsvc.log.extent.rekey import check_newest
from walsvc.log.opening import open_writer, releasing
from walsvc.log.recover.looking import find
from walsvc.scope import Opening
from walsvc.targets import scheme_of, shown
from walsvc.topics.readonly import ReadOnlyTopics

SCHEMES = {
    "unix": "walsvc.service.client.opening",
    "wal": "walsvc.service.client.opening",
    "wals": "walsvc.service.client.opening",
    "nats": "walsvc.engines.jetstream.opening",
    "tls": "walsvc.engines.jetstream.opening",
}
"""Where a log is that a URL names: a module, imported when it is needed, whose function `prepare(url, config, options)` checks
both at once and returns what opens the log."""
REPLICATION = "walsvc.engines.replication.shipping"  # imported when a log is replicated


def open(target: str | bytes | os.PathLike[Any], *, config: WalConfig | None = None, **overrides: Any) -> Opening:
    """Open the log in directory `target`, creating it if there is none, or the log that a URL names.

    Args:
        target: the directory, as text, bytes or a path; or unix:///path, wal://host:port, wals://host:port (a log behind `walsvc
            serve`, docs/SERVICE.md), nats://host:port/stream, tls://host:port/stream (docs/ENGINES.md). Text that begins with
            a scheme and a colon is a URL: write ./a:b for a directory of that name.
        config: options; None: the defaults. For a directory only.
        **overrides: single options, see WalConfig; for a URL the options of its own kind.

    Returns:
        An object for `async with walsvc.open(...) as log` or `log = await walsvc.open(...)`.

    Raises:
        BadOption at once; when entered or awaited: Locked, PathError, Corruption, UnsupportedFormat, MissingKey, WrongKey.
        NoSpace: a new log does not fit. A log that is there opens on a full device, so that it can be truncated, but not where
        even that needs room: in a full JetStream account or stream, right after a restore of a compacted log, or on a file system
        that allocates at every write (Btrfs, ZFS). It can then be read with read_only=True, and copied by `walsvc backup` to a
        place with room.
    """
    if (scheme := scheme_of(target)) is not None:
        module = SCHEMES.get(scheme)
        if module is None:
            known = ", ".join(f"{each}://" for each in SCHEMES)
            raise BadOption(
                f"{scheme}: is no kind of log", hint=f"one of {known}; or a directory, ./{shown(str(target))}"
            )
        opener: Callable[[], Awaitable[Any]] = import_module(module).prepare(target, config, overrides)
        return Opening(opener)
    options = WalConfig.of(config, overrides)
    if options.replicate is not None:
        import_module(REPLICATION).check_url(options.replicate)
    return Opening(partial(open_log, target, options))


async def open_log(target: str | bytes | os.PathLike[Any], config: WalConfig) -> Any:
    """Choose a disk, recover, and give a Log (or a ReadOnlyLog)."""
    disk = await open_disk(
        target,
        config=config,
        loop=asyncio.get_running_loop(),
        exclusive=not config.read_only,
        check=partial(check_newest, config.keys),
    )
    return await open_on(disk, config)


async def open_on(disk: Disk, config: WalConfig) -> Any:
    """Open the log on a given disk; tests pass a simulated one. The disk is closed on any error."""
    async with releasing(disk):
        if config.read_only:
            return ReadOnlyTopics(disk, config, await find(disk, config.keys))
        writer, report = await open_writer(disk, config)
    log = Log(disk, config, writer, report)
    if config.replicate is not None:
        try:
            log.shipped_by(await import_module(REPLICATION).start(log, config.replicate))
        except BaseException:
            await log.close()
            raise
    return log
