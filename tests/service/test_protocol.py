"""The protocol, byte by byte: what docs/PROTOCOL.md shows is what is sent, and nothing else gets in."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walsvc import errors
from walsvc.errors import DurabilityLost, ProtocolError, Truncated, WalError
from walsvc.model import Record
from walsvc.service.wire.codes import CODES, error_frame, error_of
from walsvc.service.wire.columns import cost_of, packed_labels, records_frame, records_of
from walsvc.service.wire.frames import (
    FIRST,
    FROM_CLIENT,
    FROM_SERVER,
    HELLO_BYTES_MAX,
    ITEMS_MAX,
    KINDS,
    MAGIC,
    OPTIONAL,
    RECORD_COST,
    Ack,
    Append,
    Batch,
    Call,
    Cancel,
    Credit,
    End,
    Error,
    Frame,
    Goodbye,
    Hello,
    Open,
    Ping,
    Pong,
    Purged,
    Records,
    Result,
    StateFrame,
    Welcome,
)
from walsvc.service.wire.protocol import LENGTH_MAX, FrameReader, decode, encode

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "PROTOCOL.md"
STATE = [1, 4, 3]
EXAMPLES: dict[str, Frame] = {
    "HELLO": Hello(0, MAGIC, 1, 1, None, None, "app", 7, {}),
    "APPEND": Append(1, 1, 1, 0, 0, None, 0, b"", [b"a", b"bc"]),
    "BATCH": Batch(2, 2, 1, 0, 0, "t", 0, True, [b"a", b"bc"]),
    "CALL": Call(3, "wait_durable", {"lsn": 3}),
    "OPEN": Open(4, "follow", {"start": 1}, 65536),
    "CREDIT": Credit(4, 65536),
    "CANCEL": Cancel(4),
    "PING": Ping(5),
    "WELCOME": Welcome(0, 1, {"requests": 1024}, STATE, {"path": "/data"}),
    "ACK": Ack(1, [[2, 2, 1, 8320]], True, 95, STATE),
    "RESULT": Result(3, 3, STATE),
    "ERROR": Error(3, "Truncated", "gone", {"lsn": 1}, STATE),
    "RECORDS": Records(4, 0, 2, [b"a", b"bc"], 0, None, 1700000000000000000, b"", STATE),
    "END": End(4, STATE),
    "STATE": StateFrame(0, STATE),
    "PONG": Pong(5, STATE),
    "GOODBYE": Goodbye(0, "Closed", "the server is stopping"),
    "PURGED": Purged(0, None, {"key": "k1"}, 4, STATE),
}


def shown() -> dict[str, bytes]:
    """The examples of the document, by kind."""
    block = DOCUMENT.read_text().split("```text\n")[1].split("```")[0]
    rows = re.findall(r"^    ([A-Z]+) +((?:[0-9a-f]{2}(?:\s+(?=[0-9a-f]{2}\b))?)+)", block, re.MULTILINE)
    return {name: bytes.fromhex(digits) for name, digits in rows}


def reader_of(frame: Frame) -> FrameReader:
    table = next(table for table in (FIRST, FROM_CLIENT, FROM_SERVER) if KINDS[type(frame)][0] in table)
    return FrameReader(table)


@pytest.mark.parametrize("name", EXAMPLES)
def test_document_shows_the_bytes_of_every_kind(name) -> None:
    assert shown()[name] == encode(EXAMPLES[name])


def test_document_shows_every_kind_and_its_number() -> None:
    assert set(shown()) == set(EXAMPLES)
    numbers = {
        name: int(number) for number, name in re.findall(r"^\| (\d+) \| ([A-Z]+) \|", DOCUMENT.read_text(), re.M)
    }
    assert numbers == {name: KINDS[type(frame)][0] for name, frame in EXAMPLES.items()}
    assert {type(frame) for frame in EXAMPLES.values()} == set(KINDS)


def test_document_names_the_limits() -> None:
    text = DOCUMENT.read_text().replace(",", "")
    for limit in (HELLO_BYTES_MAX, ITEMS_MAX, LENGTH_MAX + 1, RECORD_COST):
        assert re.search(rf"\b{limit}\b", text), limit


@pytest.mark.parametrize("frame", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_frame_comes_back_however_it_is_cut(frame, step) -> None:
    data = encode(frame) * 3
    reader, found = reader_of(frame), []
    for at in range(0, len(data), step):
        reader.receive(data[at : at + step])
        while (each := reader.next_frame()) is not None:
            found.append(each)
    assert found == [frame] * 3
    assert reader.expected_bytes == 0


@pytest.mark.parametrize("frame", EXAMPLES.values(), ids=EXAMPLES)
def test_fields_of_a_later_version_are_ignored(frame) -> None:
    body = msgpack.packb([KINDS[type(frame)][0], *frame, "later", {"more": 1}])
    assert decode(body, reader_of(frame).table) == frame


@pytest.mark.parametrize("frame", EXAMPLES.values(), ids=EXAMPLES)
def test_a_field_that_is_missing_or_of_another_type_is_refused(frame) -> None:
    table = reader_of(frame).table
    row = [KINDS[type(frame)][0], *frame]
    least = len(row) - OPTIONAL.get(type(frame), 0)
    assert decode(msgpack.packb(row[:least]), table) == frame
    with pytest.raises(ProtocolError, match="fields"):
        decode(msgpack.packb(row[: least - 1]), table)
    for index, name in enumerate(frame._fields, start=1):
        if name == "value":
            continue  # of RESULT: anything
        wrong = [*row[:index], -1.5, *row[index + 1 :]]
        with pytest.raises(ProtocolError, match=f"{name} of {type(frame).__name__} is not valid"):
            decode(msgpack.packb(wrong), table)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not one msgpack value"),
        (b"\xc1", "not one msgpack value"),
        (b"\x90", "not an array that begins"),
        (b"\x91\xc3", "not an array that begins"),
        (b"\x80", "not an array that begins"),
        (b"\x91\x63", "kind 99 is not expected"),
        (b"\x92\x07\xff", "id of Ping is not valid"),
        (b"\x92\x07\x05\x05", "not one msgpack value"),  # more than one
        (b"\x93\x05\x01\xdd\xff\xff\xff\xff", "not one msgpack value"),  # an array of 4,294,967,295
        (b"\x92\x07" + b"\x91" * 2000 + b"\x01", "not one msgpack value"),  # nested too deeply
        (b"\x94\x03\x01\xa1a\x81\x81\x01\x01\x01", "not one msgpack value"),  # a map as a key
        (b"\x94\x03\x01\xa1\xff\x80", "not one msgpack value"),  # text that is not UTF-8
    ],
)
def test_a_body_that_is_no_frame_is_refused(body, says) -> None:
    with pytest.raises(ProtocolError, match=says):
        decode(body, FROM_CLIENT)


def test_kinds_are_only_known_in_their_direction_and_state() -> None:
    for table, known in ((FIRST, {Hello}), (FROM_CLIENT, {Append, Batch, Call, Open, Credit, Cancel, Ping})):
        for name, frame in EXAMPLES.items():
            if type(frame) in known:
                assert decode(encode(frame)[4:], table) == frame
            else:
                with pytest.raises(ProtocolError, match="is not expected here"):
                    decode(encode(frame)[4:], table)
                assert name


@pytest.mark.parametrize(
    ("head", "spoken"),
    [
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"POST /x", "HTTP"),
        (b"PRI * HTTP/2.0", "HTTP/2"),
        (b"\x16\x03\x01\x02\x00\x01", "TLS"),
        (b"SSH-2.0-OpenSSH", "SSH"),
        (b"*1\r\n$4\r\nPING\r\n", "Redis"),
    ],
)
def test_foreign_protocol_is_named(head, spoken) -> None:
    reader = FrameReader(FIRST, HELLO_BYTES_MAX)
    reader.receive(head)
    with pytest.raises(ProtocolError, match=f"speaks {spoken}, not"):
        reader.next_frame()
    assert reader.foreign == spoken


@pytest.mark.parametrize("length", [HELLO_BYTES_MAX + 1, 1 << 30, 1 << 31, (1 << 32) - 1])
def test_length_over_the_limit_is_refused_before_the_body_comes(length) -> None:
    reader = FrameReader(FIRST, HELLO_BYTES_MAX)
    reader.receive(struct.pack("<I", length))
    with pytest.raises(ProtocolError, match=f"a frame of {length} bytes is over the limit"):
        reader.next_frame()


def test_limit_and_kinds_may_change_between_two_frames_of_one_piece() -> None:
    reader = FrameReader(FIRST, HELLO_BYTES_MAX)
    large = Append(1, 1, 1, 0, 0, None, 0, b"", [bytes(10_000)])
    reader.receive(encode(EXAMPLES["HELLO"]) + encode(large))
    assert isinstance(reader.next_frame(), Hello)
    reader.table, reader.body_bytes_max = FROM_CLIENT, 1 << 20
    assert reader.next_frame() == large


def test_frame_that_cannot_be_encoded_is_an_error_of_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="cannot be encoded"):
        encode(Result(1, object(), STATE))
    assert encode(Ping(1)) == bytes.fromhex("03 00 00 00 92 07 01"), "nothing of it is left in the packer"


def test_too_many_payloads_are_refused() -> None:
    full = Append(1, 1, 1, 0, 0, None, 0, b"", [b""] * ITEMS_MAX)
    assert decode(encode(full)[4:], FROM_CLIENT) == full
    with pytest.raises(ProtocolError, match="within the limits"):
        decode(encode(full._replace(payloads=[b""] * (ITEMS_MAX + 1)))[4:], FROM_CLIENT)


# ---- records and errors

RECORD = st.builds(
    Record,
    st.integers(1, 2**63),
    st.binary(max_size=20),
    st.integers(0, 0xFFFF),
    st.none() | st.text(min_size=1, max_size=5),
    st.integers(0, 2**63),
    st.dictionaries(st.text(max_size=3), st.none() | st.integers(-9, 9) | st.binary(max_size=3), max_size=2),
)


@given(st.lists(RECORD, min_size=1, max_size=6, unique_by=lambda record: record.lsn))
@settings(deadline=None)
def test_records_come_back(records) -> None:
    records.sort()
    reader = FrameReader(FROM_SERVER)
    reader.receive(encode(records_frame(9, 2, records, [packed_labels(each) for each in records], STATE)))
    frame = reader.next_frame()
    assert isinstance(frame, Records)
    assert (frame.id, frame.turn) == (9, 2)
    assert records_of(frame) == records
    assert cost_of(records) == sum(len(record.payload) + RECORD_COST for record in records)


def test_columns_that_do_not_fit_are_refused() -> None:
    frame = Records(1, 0, 5, [b"a", b"b"], 0, None, 0, b"", STATE)
    assert [record.lsn for record in records_of(frame)] == [5, 6]
    for wrong in ({"lsns": [5]}, {"types": [1, 2, 3]}, {"topics": []}, {"timestamps": [1]}, {"attributes": [b"\x80"]}):
        with pytest.raises(ProtocolError, match="different lengths"):
            records_of(frame._replace(**wrong))  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="not msgpack"):
        records_of(frame._replace(attributes=[b"", b"\xc1"]))


@pytest.mark.parametrize("name", sorted(CODES))
def test_every_error_comes_back_as_its_class_with_its_fields(name) -> None:
    error = CODES[name](
        "what happened", path="/data", segment=1, lsn=5, offset=4096, expected="x", actual=7, hint="do y"
    )
    if "errno" in CODES[name].__init__.__annotations__:
        error.errno = 28  # type: ignore[attr-defined]
    frame = error_frame(3, error, STATE)
    again = error_of(frame.code, frame.message, frame.fields)
    assert type(again) is CODES[name]
    assert str(again) == str(error)
    assert getattr(again, "errno", None) == getattr(error, "errno", None)


def test_errors_that_are_not_known_here_keep_their_name() -> None:
    class Newer(Truncated):
        pass

    assert error_frame(1, Newer("x"), STATE).code == "Truncated"
    unknown = error_of("FromTheFuture", "it happened", {"lsn": 5, "unknown": 1, "segment": "no number"})
    assert type(unknown) is WalError
    assert (unknown.message, unknown.lsn, unknown.segment) == ("FromTheFuture: it happened", 5, None)
    assert error_frame(1, DurabilityLost("x", expected=[1, 2]), STATE).fields["expected"] == "[1, 2]"
    assert set(CODES) == {
        n for n, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, WalError)
    }


# ---- anything at all

ANYTHING: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.binary(max_size=200), st.sampled_from([FIRST, FROM_CLIENT, FROM_SERVER]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_frames_or_a_protocol_error(data, table) -> None:
    reader = FrameReader(table, 1 << 16)
    reader.receive(data)
    try:
        while (frame := reader.next_frame()) is not None:
            assert type(frame) in {kind for kind, _ in table.values()}
    except ProtocolError:
        pass  # and nothing else


@given(st.integers(0, 30), st.lists(ANYTHING, max_size=10), st.sampled_from([FIRST, FROM_CLIENT, FROM_SERVER]))
@settings(max_examples=300, deadline=None)
def test_any_values_give_a_frame_or_a_protocol_error(kind, values, table) -> None:
    try:
        frame = decode(msgpack.packb([kind, *values]), table)
    except ProtocolError:
        pass
    else:
        assert list(frame) == values[: len(frame)]
        assert encode(frame)
