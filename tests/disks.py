"""The disks that tests run on. Where io_uring is not to be had, its tests are skipped with the system's own words."""

from __future__ import annotations

import pytest

from walsvc.disk.ring import KernelRing, explain


def why_no_uring() -> str:
    """Empty where a ring can be had."""
    try:
        KernelRing().close()
    except OSError as error:
        return f"no io_uring here: {explain(error)}"
    return ""


WHY_NO_URING = why_no_uring()
URING = pytest.param("uring", marks=pytest.mark.skipif(bool(WHY_NO_URING), reason=WHY_NO_URING or "it is there"))
REAL_DISKS = ["threads", URING]
