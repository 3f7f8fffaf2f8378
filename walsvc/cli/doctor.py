"""`walsvc doctor`: how a log would be written here, why, and what could be better."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from walsvc.cli import exits, options, output, runner
from walsvc.config import DISK_ENVIRONMENT
from walsvc.errors import WalError

if TYPE_CHECKING:
    from walsvc.disk.doctor import Probe

METHODS = {
    "dsync": "thread, RWF_DSYNC",
    "fdatasync": "thread, fdatasync",
    "uring dsync": "io_uring, RWF_DSYNC",
    "uring fdatasync": "io_uring, fdatasync",
}


def doctor(
    path: Annotated[
        str, typer.Argument(metavar="[PATH]", help="Where the log is or will be.", callback=options.directory_only)
    ] = ".",
    as_json: options.AsJson = False,
) -> None:
    """Say how a log would be written here and why.

    Looks at the kernel, io_uring, O_DIRECT, block size and free space, times each way to sync, and says what to do. Writes
    and removes one small file. Safe beside a program that is writing the log.
    """
    from walsvc.disk.doctor import probe

    try:
        found = probe(path)
    except (WalError, OSError) as error:
        raise typer.Exit(runner.report(error)) from None
    if as_json:
        output.emit_json(as_dict(found))
    else:
        show(found)
    raise typer.Exit(exits.OK)


def as_dict(found: Probe) -> dict[str, Any]:
    """The probe for JSON."""
    import dataclasses

    from walsvc.log.commit.ack import CORE, reason

    told = {
        "core": CORE,
        "core_reason": reason,
        "environment": os.environ.get(DISK_ENVIRONMENT),
        "double_write_bytes": double_write_bytes(found.path),
    }
    return {**dataclasses.asdict(found), **told}


def double_write_bytes(path: str) -> int | None:
    """Length of the double-write file of the log at `path`; None: there is none."""
    from walsvc.format.double_write import DOUBLE_WRITE_NAME

    try:
        return os.stat(os.path.join(path, DOUBLE_WRITE_NAME)).st_size
    except OSError:
        return None


def show(found: Probe) -> None:
    """Print the probe for people, the advice at the end."""
    direct = f"works, from {found.device_block_bytes} B on" if found.direct else "does not work"
    uring = "works" if found.uring else ("" if found.extension else "not built in; ") + found.uring_reason
    rows: list[tuple[str, str]] = [
        ("place", found.path),
        ("kernel", found.kernel),
        ("file system", f"{found.filesystem} on {found.device}"),
        ("free space", output.size(found.free_bytes)),
        ("O_DIRECT", direct),
        ("block", f"{found.block_bytes} B"),
        ("io_uring", uring),
    ]
    for method, us in sorted(found.sync_us.items(), key=lambda item: item[1]):
        rows.append((f"sync by {METHODS.get(method, method)}", f"{us:,.1f} us for one durable block (median)"))
    rows.append(("backend", f"{found.chosen}: {found.reason}"))
    if (length := double_write_bytes(found.path)) is not None:
        rows.append(("double-write", f"{output.size(length)}: the log here writes its groups there first"))
    from walsvc.log.commit.ack import CORE, reason

    rows.append(("commit path", f"{CORE}: {reason}"))
    wished = os.environ.get(DISK_ENVIRONMENT)
    if wished:
        rows.append(("environment", f"{DISK_ENVIRONMENT}={wished} overrides the choice"))
    output.table(("looked at", "found"), rows)
    if found.memory_backed:
        output.echo(f"NOT DURABLE: {found.filesystem} lives in memory.")
    for sentence in found.advice:
        output.echo(f"-> {sentence}")
    if not found.advice:
        output.echo("Nothing to improve.")
