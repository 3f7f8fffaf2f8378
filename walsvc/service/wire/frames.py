"""The frames of the service protocol, their fields, and the checks that each field has to pass; docs/PROTOCOL.md says what
they mean, protocol.py makes bytes of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from walsvc.service.wire.checks import (
    Check,
    is_any,
    is_bool,
    is_bytes,
    is_int,
    is_lsns,
    is_map,
    is_name,
    is_number,
    is_parts,
    is_payloads,
    is_state,
    is_text,
    or_column,
    or_none,
)

MAGIC = "walsvc"
VERSION = 1  # the only one so far: both VERSION_MIN and VERSION_MAX of a HELLO
HELLO_BYTES_MAX = 4096  # the only frame before authentication: a token, three short names
OVERHEAD_BYTES = 128 * 1024  # of a frame besides its payloads: attributes have up to 64 KiB, names up to 255 bytes
ITEMS_MAX = 8192  # payloads in one frame, and elements of any array or map from a client
RESULT_ITEMS_MAX = 1 << 24  # of one from the server: a log may have 100,000 topics
TOKEN_BYTES_MAX = 1024
RECORD_COST = 64  # what a record costs of a stream's credit besides its payload
APPEND_COST = 8  # and of the credit for appends, so that empty payloads cannot grow without bound either
STRICT, RELAXED, QUORUM = 0, 1, 2  # `mode` of APPEND and BATCH

STATE_FIELDS = (
    "first_lsn", "next_lsn", "durable_lsn", "pending_bytes", "waiting", "records", "payload_bytes", "groups", "syncs",
    "written_bytes", "rotations", "segments", "spares", "segment_id", "group_records_max", "sync_us_last", "sync_us_total",
    "topics",
)  # fmt: skip
"""The fields of a State: fields of walsvc.Stats. The first three are always there; a receiver ignores what follows those it knows."""
State = list[int]  # of the log at that moment


class Hello(NamedTuple):
    """First frame of a client."""

    id: int
    magic: str
    version_min: int
    version_max: int
    token: str | None
    namespace: str | None
    client: str
    producer: int
    options: dict[str, Any]


class Append(NamedTuple):
    """Independent appends, which share a group; the producer's request `seq`."""

    id: int
    seq: int
    done: int
    since: int
    mode: int
    topic: str | None
    type: int
    attributes: bytes
    payloads: list[bytes]
    expected: int | None = None
    dedupe: str | None = None


class Batch(NamedTuple):
    """A part of an atomic batch; all parts have the id and the seq of the first, and their numbers in `part`. `types` and
    `attributes` are columns, as of Records; None: no record has any."""

    id: int
    seq: int
    done: int
    since: int
    mode: int
    topic: str | None
    part: int
    last: bool
    payloads: list[bytes]
    expected: int | None = None
    types: int | list[int] | None = None
    attributes: bytes | list[bytes] | None = None


class Call(NamedTuple):
    """A method by name."""

    id: int
    method: str
    args: dict[str, Any]


class Open(NamedTuple):
    """Begin a stream of records: "read", "follow" or "consumer"."""

    id: int
    what: str
    args: dict[str, Any]
    credit: int


class Credit(NamedTuple):
    """To the server: `bytes` more may be sent on stream `id`. To the client: `bytes` of the batch `id` are consumed."""

    id: int
    bytes: int


class Cancel(NamedTuple):
    """Give up a request that is not accepted yet, or end a stream."""

    id: int


class Ping(NamedTuple):
    """Are you there?"""

    id: int


class Welcome(NamedTuple):
    """Answer to HELLO: the connection is open."""

    id: int
    version: int
    limits: dict[str, int]
    state: State
    info: dict[str, Any]


class Ack(NamedTuple):
    """The places of the records of an APPEND or BATCH: parts of [first_lsn, count, segment_id, offset of the first]. `duplicate`: length of
    the record, which was there already."""

    id: int
    parts: list[list[int]]
    durable: bool
    sync_us: int
    state: State
    duplicate: int | None = None


class Result(NamedTuple):
    """The answer of a CALL, or the stream that an OPEN has opened."""

    id: int
    value: Any
    state: State


class Error(NamedTuple):
    """A request or a stream failed: an error of the WalError tree, by the name of its class."""

    id: int
    code: str
    message: str
    fields: dict[str, Any]
    state: State


class Records(NamedTuple):
    """Records of a stream, in columns: a value that is no list counts for all of them."""

    id: int
    turn: int
    lsns: int | list[int]
    payloads: list[bytes]
    types: int | list[int]
    topics: str | list[str | None] | None
    timestamps: int | list[int]
    attributes: bytes | list[bytes]
    state: State


class End(NamedTuple):
    """A stream has ended in order."""

    id: int
    state: State


class StateFrame(NamedTuple):
    """The log's range has changed and nothing else told it."""

    id: int
    state: State


class Pong(NamedTuple):
    """Answer to PING."""

    id: int
    state: State


class Purged(NamedTuple):
    """Records below LSN `before` with these labels (without any: all), of the topic or (None) of all, are hidden; also those sent
    already. With `lsns` those with these LSNs are, and no others."""

    id: int
    topic: str | None
    labels: dict[str, Any]
    before: int
    state: State
    lsns: list[int] | None = None


class Goodbye(NamedTuple):
    """The last frame of a connection, and why it is."""

    id: int
    code: str
    message: str


Frame = (
    Hello | Append | Batch | Call | Open | Credit | Cancel | Ping
    | Welcome | Ack | Result | Error | Records | End | StateFrame | Pong | Goodbye | Purged
)  # fmt: skip
KINDS: dict[type[Frame], tuple[int, tuple[Check, ...]]] = {
    Hello: (0, (is_int, is_text, is_int, is_int, is_name, is_name, is_text, is_int, is_map)),
    Append: (1, (is_int, is_int, is_int, is_int, is_int, is_name, is_int, is_bytes, is_payloads, is_number, is_name)),
    Batch: (
        2,
        (
            is_int,
            is_int,
            is_int,
            is_int,
            is_int,
            is_name,
            is_int,
            is_bool,
            is_payloads,
            is_number,
            or_none(or_column(is_int)),
            or_none(or_column(is_bytes)),
        ),
    ),
    Call: (3, (is_int, is_text, is_map)),
    Open: (4, (is_int, is_text, is_map, is_int)),
    Credit: (5, (is_int, is_int)),
    Cancel: (6, (is_int,)),
    Ping: (7, (is_int,)),
    Welcome: (16, (is_int, is_int, is_map, is_state, is_map)),
    Ack: (17, (is_int, is_parts, is_bool, is_int, is_state, is_number)),
    Result: (18, (is_int, is_any, is_state)),
    Error: (19, (is_int, is_text, is_text, is_map, is_state)),
    Records: (
        20,
        (
            is_int,
            is_int,
            or_column(is_int),
            is_payloads,
            or_column(is_int),
            or_column(is_name),
            or_column(is_int),
            or_column(is_bytes),
            is_state,
        ),
    ),
    End: (21, (is_int, is_state)),
    StateFrame: (22, (is_int, is_state)),
    Pong: (23, (is_int, is_state)),
    Goodbye: (24, (is_int, is_text, is_text)),
    Purged: (25, (is_int, is_name, is_map, is_int, is_state, is_lsns)),
}
OPTIONAL: dict[type[Frame], int] = {Append: 2, Batch: 3, Ack: 1, Purged: 1}
"""How many of a frame's last fields are left out where they are nil: older peers do not know them. Whoever sends one has seen in
`features` of WELCOME that the server does."""
FEATURES = ("expected", "dedupe", "reverse", "transact", "entries", "empty_part", "hide", "each", "ahead")
Table = dict[int, tuple[type[Frame], tuple[Check, ...]]]
FROM_CLIENT: Table = {
    KINDS[each][0]: (each, KINDS[each][1]) for each in (Append, Batch, Call, Open, Credit, Cancel, Ping)
}
FIRST: Table = {0: (Hello, KINDS[Hello][1])}
FROM_SERVER: Table = {KINDS[each][0]: (each, KINDS[each][1]) for each in KINDS if KINDS[each][0] >= 16}
FROM_SERVER[KINDS[Credit][0]] = (Credit, KINDS[Credit][1])
