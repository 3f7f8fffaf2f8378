"""The bare device: both ways of measuring it answer alike in form, and say how they measured."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bench import device
from bench.device import CompiledDevice, Device, InterpretedDevice, open_bare
from walsvc.config import MIB


@pytest.fixture(autouse=True)
def small_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "FILE_BYTES", 2 * MIB)


def bare_devices(place: Path) -> list[device.Bare]:
    found: list[device.Bare] = [InterpretedDevice(str(place), "asked for")]
    if compiler := shutil.which("cc"):
        found.append(CompiledDevice(str(place), compiler))
    return found


def test_writing_takes_time_and_leaves_no_file(tmp_path: Path) -> None:
    for bare in bare_devices(tmp_path):
        for method in device.METHODS:
            taken = bare.write(method, 4096, 16)
            assert 0 < taken.p50 <= taken.total
        bare.close()
    assert [name for name in os.listdir(tmp_path) if name.startswith("floor")] == []


def test_reading_reads_every_byte(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3 * MIB))
    for bare in bare_devices(tmp_path):
        for direct in [False, *([True] if bare.direct else [])]:
            found = bare.read(str(file), MIB, direct=direct)
            assert found.bytes == 3 * MIB
            assert found.seconds > 0
        bare.close()


def test_the_floor_is_the_better_of_both_ways(tmp_path: Path) -> None:
    with Device(str(tmp_path)) as bare:
        assert bare.floor(4096, 0.01) > 0
        assert bare.bandwidth(64 << 10, 0.01) > 0
        assert bare.how


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    bare = open_bare(str(tmp_path))
    assert isinstance(bare, InterpretedDevice)
    assert "no C compiler" in bare.how
    bare.close()


def test_an_error_in_the_program_is_an_error_here(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    bare = CompiledDevice(str(tmp_path), compiler)
    with pytest.raises(OSError, match="ended with 1"):
        bare.read(str(tmp_path / "missing"), MIB, direct=False)
    bare.close()
