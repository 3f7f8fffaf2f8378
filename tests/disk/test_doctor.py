"""What doctor finds out about a place."""

from __future__ import annotations

import os

import pytest

from walsvc.disk import doctor, ring
from walsvc.disk.doctor import Probe, advise, mount_of, probe, unescape
from walsvc.disk.measure import Findings
from walsvc.errors import PathError


def test_probe_of_a_directory(tmp_path):
    found = probe(tmp_path)
    assert isinstance(found, Probe)
    assert found.path == str(tmp_path)
    assert found.kernel == os.uname().release
    assert found.filesystem != "unknown"
    assert found.block_bytes >= 4096
    assert found.free_bytes > 0
    assert found.extension == ring.extension_built()
    assert found.uring == (found.chosen == "uring")
    assert found.sync_us["fdatasync"] > 0
    assert found.reason
    assert list(tmp_path.iterdir()) == []


def test_probe_of_a_path_to_be_made_looks_at_the_nearest_directory(tmp_path):
    found = probe(tmp_path / "not" / "yet")
    assert found.path == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_probe_of_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(PathError):
        probe(tmp_path / "file")


def test_probe_where_nothing_can_be_written():
    found = probe("/proc/self")
    assert found.sync_us == {}
    assert any("written" in line for line in found.advice)


def test_probe_without_the_extension(tmp_path, monkeypatch):
    monkeypatch.setattr(ring, "_uring", None)
    found = probe(tmp_path)
    assert not found.extension
    assert found.chosen == "threads"
    assert "not built" in found.uring_reason
    assert any("liburing-dev" in line for line in found.advice)


def test_memory_is_called_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "mount_of", lambda path: ("tmpfs", "tmpfs"))
    found = probe(tmp_path)
    assert found.memory_backed
    assert any("power cut" in line for line in found.advice)


@pytest.mark.parametrize(
    ("filesystem", "findings", "refused", "free_bytes", "word"),
    [
        ("nfs4", Findings(True, 4096, {"dsync": 80.0, "fdatasync": 90.0}), None, 1 << 40, "network"),
        ("overlay", Findings(True, 4096, {"dsync": 80.0, "fdatasync": 90.0}), None, 1 << 40, "container"),
        ("ext4", Findings(False, 1, {"dsync": 80.0, "fdatasync": 90.0}), None, 1 << 40, "O_DIRECT"),
        ("ext4", Findings(True, 512, {"dsync": 8000.0, "fdatasync": 9000.0}), None, 1 << 40, "commits a second"),
        ("ext4", Findings(True, 512, {"dsync": 2.0, "fdatasync": 2.0}), None, 1 << 40, "lie"),
        ("ext4", Findings(True, 512, {"dsync": 200.0, "fdatasync": 90.0}), None, 1 << 40, "faster here than RWF_DSYNC"),
        ("ext4", Findings(True, 512, {"dsync": 80.0, "fdatasync": 90.0}), None, 300 << 20, "300 MiB"),
        ("ext4", Findings(True, 512, {"dsync": 80.0, "fdatasync": 90.0}), "EPERM", 1 << 40, "EPERM"),
    ],
)  # fmt: skip
def test_each_shortcoming_has_its_advice(filesystem, findings, refused, free_bytes, word):
    advice = advise(filesystem, findings, refused, free_bytes)
    assert len(advice) == 1
    assert word in advice[0]


def test_advice_is_about_the_way_that_would_be_chosen():
    timings = {"dsync": 200.0, "fdatasync": 90.0, "uring dsync": 80.0, "uring fdatasync": 90.0}
    assert advise("ext4", Findings(True, 512, timings), None, 1 << 40) == []


def test_a_good_place_needs_no_advice():
    assert advise("xfs", Findings(True, 512, {"dsync": 80.0, "fdatasync": 90.0}), None, 1 << 40) == []


def test_mounts_are_found_by_the_longest_point():
    assert mount_of("/proc/self")[0] == "proc"
    assert mount_of("/")[0] != "unknown"
    assert unescape("/a\\040b\\134c\\011d\\012e") == "/a b\\c\td\ne"
