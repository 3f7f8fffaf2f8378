"""Key rings, key files, and the encryption of groups, byte by byte."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import shutil
import traceback
from array import array
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

import walsvc
from tests.golden.make import GOLDEN_KEYS, payload_of
from walsvc import BadOption, KeyRing, MissingKey, WrongKey
from walsvc.format import cipher as cipher_module
from walsvc.format.cipher import SegmentCipher, begin_cipher, cipher_of
from walsvc.format.columns import encode_column
from walsvc.format.group import (
    CRCS_OFFSET,
    GROUP_HEADER_BYTES,
    HEADER_CRC,
    TAG_BYTES,
    BadGroup,
    GroupHeader,
    align_up,
    check_group_body,
    decode_columns,
    decode_group_header,
    encode_group,
)
from walsvc.format.segment import (
    BadSegment,
    SegmentHeader,
    decode_segment_header,
    encode_segment_header,
)
from walsvc.keyring import BLIND

SECRET = bytes(range(100, 132))
OTHER = bytes(range(32))
RING = KeyRing(current=("k2", SECRET), older=[("k1", OTHER)])
PLAIN_HEADER = SegmentHeader(4096, 1 << 20, 77, 3, 5, 1001, 12345, 8192, 4096)
TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden" / "encrypted-v1"


def group_of(payloads: list[bytes], meta: bytes = b"", *, align: int = 512, tag: int = TAG_BYTES, **fields: int):
    """A header and the bytes behind the payload area."""
    index = encode_column(array("I", map(len, payloads)))
    size = sum(map(len, payloads))
    header = GroupHeader(
        **{
            "flags": 0,
            "log_id": 77,
            "generation": 3,
            "segment": 1001,
            "offset": 4096,
            "first_lsn": 1001,
            "durable_lsn": 1000,
            "batch_lsn": 0,
            "timestamp_ns": 5,
            "records": len(payloads),
            "payload_bytes": size,
            "index_bytes": len(index),
            "meta_bytes": len(meta),
            "group_bytes": align_up(GROUP_HEADER_BYTES + size + len(index) + len(meta) + tag, align),
            "previous_crc": 9,
            **fields,
        }
    )
    return header, index + meta


def sealed(cipher: SegmentCipher, payloads: list[bytes], meta: bytes = b"", **fields: int) -> bytes:
    """A whole encrypted group."""
    header, rest = group_of(payloads, meta, **fields)
    data = bytearray(b"\xaa" * header.group_bytes)
    crc = cipher.seal_group(memoryview(data), header, payloads, rest)
    assert crc == decode_group_header(bytes(data)).header_crc
    return bytes(data)


def opened(cipher: SegmentCipher, data: bytes) -> bytes:
    """What checking and opening a group at the beginning of `data` gives."""
    header = decode_group_header(data)
    check_group_body(header, data, encrypted=True)
    return cipher.open_group(header, data)


def with_right_crcs(data: bytes) -> bytes:
    """The group with its CRCs computed anew, as an attacker would."""
    changed = bytearray(data)
    payload_bytes = int.from_bytes(data[76:80], "little")
    middle = GROUP_HEADER_BYTES + payload_bytes
    changed[CRCS_OFFSET : CRCS_OFFSET + 4] = HEADER_CRC.pack(crc32c(bytes(changed[GROUP_HEADER_BYTES:middle])))
    changed[CRCS_OFFSET + 4 : CRCS_OFFSET + 8] = HEADER_CRC.pack(crc32c(bytes(changed[middle:])))
    changed[124:128] = HEADER_CRC.pack(crc32c(bytes(changed[:124])))
    return bytes(changed)


# ---- key rings


@pytest.mark.parametrize(
    ("current", "older"),
    [
        (("", SECRET), []),
        (("x" * 33, SECRET), []),
        (("ü" * 17, SECRET), []),
        (("a b\n", SECRET), []),
        (("k", SECRET[:31]), []),
        (("k", SECRET + b"x"), []),
        (("k", SECRET.hex()), []),
        (("k", SECRET), [("k", OTHER)]),
        (("k", SECRET), [("l", b"")]),
        ((1, SECRET), []),
        (SECRET, []),
        ("k", []),
        (None, []),
        (("k", SECRET), 5),
    ],
)
def test_bad_rings_are_refused_without_a_key_in_any_message(current, older):
    with pytest.raises(BadOption) as caught:
        KeyRing(current, older)
    assert_no_key(str(caught.value))
    assert caught.value.hint


def test_ring_gives_its_keys_by_id_and_does_not_change():
    assert RING.ids == ("k2", "k1")
    assert RING.current_id == "k2"
    assert RING.key("k1").reveal() == OTHER
    assert RING.key("k3") is None
    with pytest.raises(AttributeError):
        RING.current_id = "k1"
    with pytest.raises(AttributeError):
        RING.more = 1


def assert_no_key(text: str) -> None:
    for key in (SECRET, OTHER):
        for form in (repr(key)[2:20], key.hex()[:16], base64.b64encode(key).decode()[:16], repr(list(key))[1:20]):
            assert form not in text


def test_no_key_in_repr_pickle_or_copy():
    config = walsvc.WalConfig(keys=RING)
    cipher = cipher_of(RING, begin_cipher(RING, PLAIN_HEADER)[0])
    for each in (RING, RING.key("k1"), RING._keys, config, cipher, {"ring": RING}):
        assert_no_key(repr(each) + str(each))
    with pytest.raises(BadOption, match="not bytes") as caught:
        walsvc.WalConfig(keys=SECRET)
    assert_no_key(str(caught.value))
    assert repr(RING) == "KeyRing(current='k2', older=['k1'])"
    for each in (RING, RING.key("k1"), config):
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(each)
    assert copy.deepcopy(RING) is RING
    assert copy.copy(RING) is RING
    assert copy.deepcopy(RING.key("k1")) is RING.key("k1")


def make_bad_ring() -> None:
    KeyRing(("k", SECRET), [("k", OTHER)])


def make_bad_config() -> None:
    walsvc.open("nowhere", keys=SECRET)


def test_no_key_in_tracebacks_that_show_variables(tmp_path):
    bad_file = tmp_path / "bad"
    bad_file.write_bytes(b"k1 " + base64.b64encode(SECRET) + b"\nk2 " + base64.b64encode(OTHER) + b" more\n")
    bad_file.chmod(0o600)
    header, _ = begin_cipher(RING, PLAIN_HEADER)

    def wrong_key() -> None:
        cipher_of(KeyRing(("k2", OTHER)), header)

    def missing_key() -> None:
        cipher_of(KeyRing(("k3", SECRET)), header)

    for provoke in (make_bad_ring, make_bad_config, lambda: KeyRing.from_file(bad_file), wrong_key, missing_key):
        with pytest.raises(walsvc.WalError) as caught:
            provoke()
        told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        frames = [each for each in told.stack if not Path(each.filename).is_relative_to(TESTS)]
        assert frames
        for frame in frames:
            assert_no_key(str(frame.locals))
        assert_no_key("".join(traceback.format_exception(caught.value)))


# ---- key files


def key_file(path: Path, text: str, mode: int = 0o600) -> Path:
    file = path / "keys"
    file.write_text(text)
    file.chmod(mode)
    return file


def line(key_id: str, key: bytes) -> str:
    return f"{key_id} {base64.b64encode(key).decode()}\n"


def test_key_file_names_the_current_key_first(tmp_path):
    file = key_file(tmp_path, "# keys of the log\n\n" + line("k2", SECRET) + "  " + line("k1", OTHER))
    ring = KeyRing.from_file(file)
    assert ring.ids == ("k2", "k1")
    assert (ring.key("k2").reveal(), ring.key("k1").reveal()) == (SECRET, OTHER)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o777])
def test_key_file_that_others_may_use_is_refused_with_mode_and_remedy(tmp_path, mode):
    file = key_file(tmp_path, line("k", SECRET), mode)
    with pytest.raises(BadOption, match=f"{mode:04o}") as caught:
        KeyRing.from_file(file)
    assert f"chmod 600 {file}" in str(caught.value)
    file.chmod(0o400)
    assert KeyRing.from_file(file).ids == ("k",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "k\n",
        "k a b\n",
        "k !!!!\n",
        "k " + "QUJD\n",
        line("k", SECRET) * 2,
        line("", SECRET),
        "k \xff\n",
    ],
)
def test_key_file_that_is_not_one_is_refused_without_its_content(tmp_path, text):
    with pytest.raises(BadOption) as caught:
        KeyRing.from_file(key_file(tmp_path, text))
    assert_no_key(str(caught.value))


def test_key_file_must_be_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(BadOption, match="regular file"):
            KeyRing.from_file(path)
    with pytest.raises(FileNotFoundError):
        KeyRing.from_file(tmp_path / "absent")
    huge = key_file(tmp_path, "#" * (2 << 20))
    with pytest.raises(BadOption, match="more than"):
        KeyRing.from_file(huge)


# ---- segment headers


def test_cipher_fields_travel_in_the_segment_header():
    header, cipher = begin_cipher(RING, PLAIN_HEADER)
    decoded = decode_segment_header(encode_segment_header(header))
    assert decoded == header
    assert (decoded.cipher, decoded.required, decoded.key_id) == (1, 1, b"k2")
    data = sealed(cipher, [b"payload"])
    assert opened(cipher_of(RING, decoded), data)[128:135] == b"payload"
    assert cipher_of(RING, PLAIN_HEADER) is None
    assert cipher_of(BLIND, header) is None


def test_missing_and_wrong_keys_are_told_apart_and_name_the_id():
    header, _ = begin_cipher(RING, PLAIN_HEADER)
    for ring in (None, KeyRing(("k1", OTHER))):
        with pytest.raises(MissingKey, match="'k2'") as missing:
            cipher_of(ring, header, "/some/log")
        assert (missing.value.path, missing.value.segment) == ("/some/log", 1001)
    with pytest.raises(WrongKey, match="'k2'"):
        cipher_of(KeyRing(("k2", OTHER)), header)
    with pytest.raises(WrongKey):
        cipher_of(RING, header._replace(salt=bytes(32)))


def test_unknown_cipher_is_a_newer_format_and_a_contradiction_is_damage():
    header, _ = begin_cipher(RING, PLAIN_HEADER)
    with pytest.raises(BadSegment) as newer:
        decode_segment_header(encode_segment_header(header._replace(cipher=2)))
    assert newer.value.newer
    for contradiction in (header._replace(required=0), PLAIN_HEADER._replace(required=1)):
        with pytest.raises(BadSegment) as damaged:
            decode_segment_header(encode_segment_header(contradiction))
        assert not damaged.value.newer


@pytest.mark.parametrize(
    "change",
    [
        {"log_id": 78},
        {"ordinal": 6},
        {"first_lsn": 1002},
        {"generation": 4},
        {"previous_end": 4096},
        {"file_bytes": 1 << 21},
        {"align": 512},
        {"block_bytes": 512},
        {"created_ns": 1},
        {"optional": 1},
    ],
)
def test_group_does_not_open_under_an_altered_segment_header(change):
    header, cipher = begin_cipher(RING, PLAIN_HEADER)
    data = sealed(cipher, [b"payload"])
    with pytest.raises(BadGroup, match="authentication failed"):
        opened(cipher_of(RING, header._replace(**change)), data)


# ---- groups


@given(
    st.lists(st.binary(max_size=300), max_size=20), st.binary(max_size=100), st.sampled_from([64, 512, 4096])
)  # payloads, metadata, alignment
def test_encrypted_group_opens_to_what_the_plain_group_is(payloads, meta, align):
    _, cipher = begin_cipher(RING, PLAIN_HEADER)
    data = sealed(cipher, payloads, meta, align=align)
    header, rest = group_of(payloads, meta, align=align)
    plain = bytearray(header.group_bytes)
    encode_group(memoryview(plain), header, payloads, rest)
    body_end = GROUP_HEADER_BYTES + header.body_bytes
    result = opened(cipher, data)
    assert result[GROUP_HEADER_BYTES:] == plain[GROUP_HEADER_BYTES:body_end]
    assert decode_columns(decode_group_header(data), result).lengths.tolist() == [len(each) for each in payloads]
    assert data[body_end + TAG_BYTES :] == bytes(len(data) - body_end - TAG_BYTES), "the padding is not zeros"


def test_equal_groups_have_nothing_in_common_on_disk():
    _, cipher = begin_cipher(RING, PLAIN_HEADER)
    first, second = (sealed(cipher, [bytes(64)]) for _ in range(2))
    assert first[96:108] != second[96:108]
    assert first[128:192] != second[128:192]
    assert bytes(8) not in first[128:192]


def test_older_versions_of_the_library_give_the_same_bytes(monkeypatch):
    header, cipher = begin_cipher(RING, PLAIN_HEADER)
    older = cipher_of(RING, header)
    older._encrypt_into = older._decrypt_into = None
    monkeypatch.setattr(cipher_module.os, "urandom", bytes)
    data = sealed(cipher, [b"a", b"bc" * 50], b"meta")
    assert data == sealed(older, [b"a", b"bc" * 50], b"meta")
    assert opened(older, data) == opened(cipher, data)


def test_every_flipped_bit_of_a_group_is_refused_with_and_without_right_crcs():
    _, cipher = begin_cipher(RING, PLAIN_HEADER)
    data = sealed(cipher, [b"one", b"", b"three"], b"m", align=64)
    used = GROUP_HEADER_BYTES + decode_group_header(data).body_bytes + TAG_BYTES
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadGroup):
            opened(cipher, bytes(changed))
        authenticated = bit // 8 < CRCS_OFFSET or GROUP_HEADER_BYTES <= bit // 8 < used
        try:
            result = opened(cipher, with_right_crcs(bytes(changed)))
        except BadGroup:
            continue
        assert not authenticated, f"bit {bit} was changed and the group opened"
        assert result[GROUP_HEADER_BYTES:] == opened(cipher, data)[GROUP_HEADER_BYTES:]


@pytest.mark.parametrize(
    "field",
    ["generation", "segment", "offset", "first_lsn", "durable_lsn", "batch_lsn", "timestamp_ns", "previous_crc"],
)
def test_ciphertext_is_bound_to_its_place(field):
    """The place is changed in the header, all CRCs are right, and it still does not open."""
    header, cipher = begin_cipher(RING, PLAIN_HEADER)
    data = sealed(cipher, [b"payload"], align=64)
    moved = decode_group_header(data)
    moved = moved._replace(**{field: getattr(moved, field) + 64})
    forged = bytearray(data)
    forged[:GROUP_HEADER_BYTES] = cipher_module.GROUP_FIELDS.pack(cipher_module.GROUP_MAGIC, *moved[:20]) + bytes(4)
    with pytest.raises(BadGroup, match="authentication failed"):
        opened(cipher_of(RING, header), with_right_crcs(bytes(forged)))


async def test_golden_encrypted_log_decodes_and_goes_on(tmp_path):
    path = tmp_path / "log"
    shutil.copytree(GOLDEN, path)
    expected = json.loads((path / "expected.json").read_text())
    ring = KeyRing(GOLDEN_KEYS[1], [GOLDEN_KEYS[0]])
    async with walsvc.open(path, read_only=True, keys=ring) as log:
        records = [record async for record in log.read()]
        assert [record.lsn for record in records] == list(range(1, expected["next_lsn"]))
        assert all(record.payload == payload_of(record.lsn) for record in records)
        assert log.report.clean
    async with walsvc.open(path, segment_bytes=65536, keys=ring) as log:
        assert (await log.append(b"and on")).lsn == expected["next_lsn"]
    assert {decode_segment_header(file.read_bytes()).key_id.decode() for file in path.glob("*.wal")} == set(
        expected["keys"]
    )
