"""`walsvc.open`: from a directory or a URL to an open log.

What checks the call is imported with this module, and is small. The log itself takes a tenth of a second to import: the first
opening does so in a thread, so that the loop runs on.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from walsvc.config import WalConfig
from walsvc.disk.base import Storage
from walsvc.disk.pool import imported
from walsvc.errors import BadOption, WrongLoop
from walsvc.scope import Dropped, Opening
from walsvc.targets import scheme_of, shown

if TYPE_CHECKING:
    from walsvc.api import Log
    from walsvc.disk.base import Disk
    from walsvc.interface import Log as AnyLog
    from walsvc.open_keywords import ClientOptions, LogOptions, StreamOptions
    from walsvc.topics.readonly import ReadOnlyTopics

SERVICE = ("walsvc.service.client.config", "walsvc.service.client.opening")
JETSTREAM = ("walsvc.engines.jetstream.options", "walsvc.engines.jetstream.opening")
SCHEMES = {"unix": SERVICE, "wal": SERVICE, "wals": SERVICE, "nats": JETSTREAM, "tls": JETSTREAM}
"""The module for each scheme of a URL, whose `prepare(url, config, options)` checks both at once, and returns the arguments of `open_log`
in the other module."""
REPLICATION = "walsvc.engines.replication.shipping"  # imported when a log is replicated
EMBEDDED = ("walsvc.api", "walsvc.disk.choose", "walsvc.log.opening")
READ_ONLY = ("walsvc.disk.choose", "walsvc.log.opening", "walsvc.log.recover.watched", "walsvc.topics.readonly")
ENCRYPTION = ("cryptography.hazmat.primitives.ciphers.aead", "cryptography.hazmat.primitives.kdf.hkdf")


@overload
def open(
    target: bytes | os.PathLike[Any] | Storage,
    *,
    read_only: Literal[True],
    config: WalConfig | None = None,
    **overrides: Unpack[LogOptions],
) -> Opening[ReadOnlyTopics]: ...
@overload
def open(
    target: bytes | os.PathLike[Any] | Storage,
    *,
    read_only: Literal[False] = False,
    **overrides: Unpack[LogOptions],
) -> Opening[Log]: ...
@overload
def open(
    target: str | bytes | os.PathLike[Any] | Storage,
    *,
    read_only: bool = False,
    config: WalConfig | None = None,
    **overrides: Unpack[LogOptions],
) -> Opening[AnyLog]: ...
@overload
def open(target: str, **overrides: Unpack[ClientOptions]) -> Opening[AnyLog]: ...
@overload
def open(target: str, *, config: WalConfig | None = None, **overrides: Unpack[StreamOptions]) -> Opening[AnyLog]: ...
def open(
    target: str | bytes | os.PathLike[Any] | Storage, *, config: WalConfig | None = None, **overrides: Any
) -> Opening[Any]:
    """Open the log in directory `target`, creating it if there is none, or the log that a URL names.

    Args:
        target: the directory, as text, bytes or a path; or unix:///path, wal://host:port, wals://host:port (a log behind `walsvc
            serve`, docs/SERVICE.md), nats://host:port/stream, tls://host:port/stream (docs/ENGINES.md). Text that begins with
            a scheme and a colon is a URL: write ./a:b for a directory of that name. Also the disk of a test: walsvc.testing.Disk.
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
    if isinstance(target, Storage):
        return Opening(partial(open_storage, target, WalConfig.of(config, overrides)))
    if (scheme := scheme_of(target)) is not None:
        if scheme not in SCHEMES:
            known = ", ".join(f"{each}://" for each in SCHEMES)
            raise BadOption(
                f"{scheme}: is no kind of log", hint=f"one of {known}; or a directory, ./{shown(str(target))}"
            )
        checking, opening = SCHEMES[scheme]
        return Opening(partial(open_elsewhere, opening, import_module(checking).prepare(target, config, overrides)))
    options = WalConfig.of(config, overrides)
    check_system()
    if options.replicate is not None:
        import_module(JETSTREAM[0]).parse_replica(options.replicate)
    return Opening(partial(open_log, target, options))


def check_system() -> None:
    """BadOption where no directory can hold a log: it is locked by fcntl's flock, which Windows has not."""
    try:
        import fcntl  # noqa: F401
    except ImportError:
        raise BadOption(
            f"a log in a directory needs Linux or macOS; this system ({sys.platform}) has no POSIX locks",
            hint="run `walsvc serve` on Linux, and open wal://HOST:PORT here",
        ) from None


def check_loop() -> None:
    """WrongLoop unless an asyncio loop runs here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise WrongLoop(
            "walsvc.open is for asyncio, and no asyncio event loop runs here",
            hint="asyncio.run(main()); with anyio, its asyncio backend; from trio, or without a loop: walsvc.blocking.open, in a thread",
        ) from None


async def open_elsewhere(module: str, arguments: tuple[Any, ...]) -> Any:
    """Open a log that a URL names."""
    check_loop()
    await imported(module)
    return await import_module(module).open_log(*arguments)


def parts_of(config: WalConfig) -> list[str]:
    """Names of the modules that the log of a directory needs."""
    names = [*(READ_ONLY if config.read_only else EMBEDDED)]
    if config.keys is not None:
        names += ENCRYPTION
    if config.replicate is not None:
        names.append(REPLICATION)
    return names


async def open_log(target: str | bytes | os.PathLike[Any], config: WalConfig) -> Any:
    """Choose a disk, recover, and give a Log (or a ReadOnlyLog)."""
    check_loop()
    await imported(*parts_of(config))
    from walsvc.disk.choose import open_disk
    from walsvc.log.extent.rekey import check_newest

    disk = await open_disk(
        target,
        config=config,
        loop=asyncio.get_running_loop(),
        exclusive=not config.read_only,
        check=partial(check_newest, config.keys),
    )
    return await open_on(disk, config, Dropped.TELLS)


async def open_storage(storage: Storage, config: WalConfig) -> Any:
    """Open the log of what brings its own disk. Imports happen here: its loop may know no threads."""
    for name in parts_of(config):
        import_module(name)
    return await open_on(await storage.disk_for(config), config)


async def open_on(disk: Disk, config: WalConfig, dropped: Dropped = Dropped.SILENT) -> Any:
    """Open the log on a given disk; tests pass a simulated one. The disk is closed on any error.

    Args:
        disk, config: of the log.
        dropped: what becomes of the log if its program drops it without close.
    """
    from walsvc.log.opening import open_writer, releasing

    async with releasing(disk):
        if config.read_only:
            from walsvc.log.recover.watched import watch
            from walsvc.topics.readonly import ReadOnlyTopics

            return ReadOnlyTopics(await watch(disk, config.keys), config, dropped)
        writer, report = await open_writer(disk, config)
    from walsvc.api import Log

    log = Log(writer, report, dropped)
    if config.replicate is not None:
        try:
            await import_module(REPLICATION).start(log, config.replicate)
        except BaseException:
            await log.close()
            raise
    return log
