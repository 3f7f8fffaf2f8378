"""The report of `walsvc doctor` about a place for a log: facts, measured figures, the backend that would be chosen, advice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from walsvc.disk import dsync, ring
from walsvc.disk.lock import why_no_directory_lock
from walsvc.disk.measure import BLOCK_BYTES_DEFAULT, Findings, dsync_wins, say_timings, try_directory
from walsvc.disk.paths import checked_path, path_error

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "virtiofs"})
FREE_BYTES_ADVISED = 1 << 30  # room for some segments of the default size and their spares


@dataclass(frozen=True, slots=True)
class Probe:
    """A picture of a directory and of what the kernel offers there.

    Attributes:
        path: the directory looked at: the one asked for, or the nearest that exists.
        kernel: release, as uname says it.
        filesystem, device: type and source from mountinfo, "unknown" where that cannot be read.
        memory_backed: nothing on it survives a power cut.
        direct, block_bytes: O_DIRECT works; the block a log would use.
        device_block_bytes: smallest O_DIRECT write that went through, 1 without O_DIRECT.
        extension: the io_uring extension was built.
        uring, uring_reason: io_uring can be used; why, or why not.
        sync_us: median microseconds of one durable block: "dsync", "fdatasync", "uring dsync", "uring fdatasync".
        free_bytes: what this process may still allocate.
        dsync_doubt: why RWF_DSYNC is not used here, whatever its figure; None where it may be.
        chosen, reason: the backend that "auto" would take.
        advice: what to do, one sentence each; empty when all is well.
    """

    path: str
    kernel: str
    filesystem: str
    device: str
    memory_backed: bool
    direct: bool
    block_bytes: int
    device_block_bytes: int
    extension: bool
    uring: bool
    uring_reason: str
    sync_us: Mapping[str, float]
    free_bytes: int
    dsync_doubt: str | None
    chosen: str
    reason: str
    advice: tuple[str, ...]


def probe(path: str | os.PathLike[str]) -> Probe:
    """Look at `path`. Blocks for some milliseconds; writes and removes one small file; safe beside a live writer.

    A path that does not exist is answered for the nearest directory above it. Raises PathError.
    """
    wanted = checked_path(path)
    place = os.path.abspath(wanted)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    refused = ring.why_not()
    advice: list[str] = []
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise path_error(error, wanted) from error
    try:
        make_ring = ring.KernelRing if refused is None else None
        findings = try_directory(descriptor, direct=None, make_ring=make_ring, fresh=True)
        advice += filter(None, [why_no_directory_lock(descriptor)])
    except OSError as error:
        findings = Findings(direct=False, device_block_bytes=1, timings={})
        advice.append(f"nothing can be written here ({error.strerror}), so nothing was measured")
    finally:
        status = os.fstatvfs(descriptor)
        doubt = dsync.doubt(descriptor, direct=True)
        os.close(descriptor)
    filesystem, device = mount_of(place)
    free_bytes = status.f_bavail * status.f_frsize
    advice += advise(filesystem, findings, refused, free_bytes, doubt)
    return Probe(
        path=place,
        kernel=os.uname().release,
        filesystem=filesystem,
        device=device,
        memory_backed=filesystem in MEMORY_FILE_SYSTEMS,
        direct=findings.direct,
        block_bytes=max(BLOCK_BYTES_DEFAULT, findings.device_block_bytes),
        device_block_bytes=findings.device_block_bytes,
        extension=ring.extension_built(),
        uring=refused is None,
        uring_reason=refused or "io_uring_setup succeeds",
        sync_us=dict(findings.timings),
        free_bytes=free_bytes,
        chosen="uring" if refused is None else "threads",
        dsync_doubt=doubt or None,
        reason=say_timings(findings.timings, *(("io_uring", "uring ") if refused is None else ("a thread", "")), doubt),
        advice=tuple(advice),
    )


def advise(filesystem: str, findings: Findings, refused: str | None, free_bytes: int, doubt: str = "") -> list[str]:
    """Advice: what could be better, and how."""
    advice: list[str] = []
    if filesystem in MEMORY_FILE_SYSTEMS:
        advice.append(f"{filesystem} is memory: nothing here survives a power cut; use a directory on a device")
    if filesystem in NETWORK_FILE_SYSTEMS:
        advice.append(
            f"{filesystem} is a network file system: what its fsync promises is up to the server; use a local disk"
        )
    if filesystem == "overlay":
        advice.append("overlay is a container's own layer and goes with the container; mount a volume for the log")
    if refused is not None:
        what = "install liburing-dev and a C compiler, then reinstall" if not ring.extension_built() else "allow it"
        advice.append(f"io_uring cannot be used: {refused}; {what}, or stay with threads")
    if findings.timings and not findings.direct:
        advice.append("O_DIRECT does not work here: writes pass through the page cache and evict other data from it")
    fastest = min(findings.timings.values(), default=0.0)
    if fastest > 5_000:
        advice.append(f"a sync takes {fastest / 1000:.0f} ms: expect {1e6 / fastest:.0f} commits a second; a device with "
                      "power-loss protection does thousands")  # fmt: skip
    if 0 < fastest < 5 and filesystem not in MEMORY_FILE_SYSTEMS:
        advice.append(f"a sync takes {fastest:.1f} us, less than any device needs: check that the disk does not lie")
    way = "uring " if any(name.startswith("uring ") for name in findings.timings) else ""
    if not doubt and not dsync_wins(findings.timings, way):
        advice.append("fdatasync after the write is faster here than RWF_DSYNC, and is used")
    if free_bytes < FREE_BYTES_ADVISED:
        advice.append(f"only {free_bytes >> 20} MiB are free; a log with segments of 64 MiB wants 1 GiB")
    return advice


def mount_of(path: str) -> tuple[str, str]:
    """(file system type, source) of the mount that holds `path`, by the longest mount point above it (proc(5))."""
    real = os.path.realpath(path)
    best, found = -1, ("unknown", "unknown")
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            point = unescape(before.split(" ")[4])
            inside = point in {"/", real} or real.startswith(point + "/")
            if inside and len(point) >= best:  # a later mount on the same point hides the earlier one
                kind, source, *_ = after.split(" ")
                best, found = len(point), (kind, unescape(source))
    return found


def unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
