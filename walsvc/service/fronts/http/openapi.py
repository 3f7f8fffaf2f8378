"""The OpenAPI document of the HTTP front, served at /v1/openapi.json. A test compares it with what is answered."""

from __future__ import annotations

from typing import Any

from walsvc import __version__

Schema = dict[str, Any]
LSN: Schema = {"type": "integer", "minimum": 1, "format": "int64"}
TEXT: Schema = {"type": "string"}
SECONDS: Schema = {"type": "number", "minimum": 0}


def parameter(name: str, place: str, schema: Schema, words: str, *, many: bool = False) -> Schema:
    """A parameter; `many`: it may be repeated."""
    row = {
        "name": name,
        "in": place,
        "schema": {"type": "array", "items": schema} if many else schema,
        "description": words,
    }
    return {**row, "required": True} if place == "path" else row


def reference(kind: str, name: str) -> Schema:
    """A reference into the components."""
    return {"$ref": f"#/components/{kind}/{name}"}


def answers(**by_status: Schema) -> Schema:
    """Answers by status; whatever else goes wrong is a problem."""
    found = {name.removeprefix("s"): each for name, each in by_status.items()}
    return {**found, "default": reference("responses", "Problem")}


def json_body(schema: Schema, words: str) -> Schema:
    """An answer of JSON."""
    return {"description": words, "content": {"application/json": {"schema": schema}}}


RECORD: Schema = {
    "type": "object",
    "description": "A record, as `walsvc cat --json` prints it.",
    "properties": {
        "lsn": LSN,
        "timestamp": {"type": "string", "description": "RFC 3339, in UTC, with nanoseconds."},
        "type": {"type": "integer", "minimum": 0, "maximum": 65535},
        "topic": {"type": ["string", "null"]},
        "attributes": {"type": "object", "description": "Labels."},
        "payload": {
            "oneOf": [TEXT, {"type": "object", "properties": {"base64": TEXT}, "required": ["base64"]}],
            "description": "Text where it is UTF-8, else an object with base64.",
        },
    },
    "required": ["lsn", "timestamp", "type", "topic", "attributes", "payload"],
}
APPENDED: Schema = {
    "type": "object",
    "properties": {
        "lsn": LSN,
        "segment_id": LSN,
        "offset": {"type": "integer"},
        "encoded_len": {"type": "integer"},
        "durable": {"type": "boolean"},
        "sync_us": {"type": "integer"},
        "duplicate": {
            "type": "boolean",
            "description": "The key had been used before: this is where the first record is.",
        },
    },
    "required": ["lsn", "durable", "duplicate"],
}
APPENDED_BATCH: Schema = {
    "type": "object",
    "properties": {"first_lsn": LSN, "last_lsn": LSN, "count": {"type": "integer"}, "durable": {"type": "boolean"}},
    "required": ["first_lsn", "last_lsn", "count", "durable"],
}
DELIVERY: Schema = {
    "type": "object",
    "properties": {
        "delivery": {"type": "string", "description": "For ack, nak and extend."},
        "attempt": {"type": "integer", "minimum": 1},
        "seconds": {"type": ["number", "null"], "description": "Until others may get the record."},
        "record": reference("schemas", "Record"),
    },
    "required": ["delivery", "attempt", "seconds", "record"],
}
PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457. `type` is urn:walsvc: and the name of the error's class; about:blank for 401, 404, 405, 408, 415 and 421, which only HTTP has.",
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "instance": TEXT,
        "hint": {"type": "string", "description": "What to do."},
        "lsn": LSN,
    },
    "required": ["type", "status", "detail", "instance"],
}
LABEL_WORDS = (
    "label.NAME=VALUE, for any NAME. A VALUE that reads as JSON number, true or false is that, quotes make it text."
)
READING = [
    parameter("start", "query", LSN, "First LSN. Default: the log's first."),
    parameter(
        "limit",
        "query",
        {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 100},
        "Records of a page, at most.",
    ),
    parameter("type", "query", {"type": "integer"}, "Only records of these types.", many=True),
    parameter("since", "query", TEXT, "Only records from this time on, ISO 8601."),
    parameter("until", "query", TEXT, "Only records before this time. Not with events."),
    parameter("label.NAME", "query", TEXT, f"Only records with this label: {LABEL_WORDS}", many=True),
    parameter("Last-Event-ID", "header", LSN, "For events: they go on behind it."),
]
HIDDEN = {"description": "Hidden from every reader, durably."}
DELETING = [
    parameter("lsn", "query", LSN, "Records by their LSNs, as many as fit in a request's line of 8 KiB.", many=True),
    parameter("keep", "query", {"type": "integer", "minimum": 0}, "All but the newest so many. Topics only."),
    parameter("label.NAME", "query", TEXT, f"Records with this label: {LABEL_WORDS}"),
    parameter("before", "query", LSN, "Alone: all records below this LSN. With labels: only those below it."),
    parameter("force", "query", {"enum": ["true", "false"]}, "With `before` alone: also what a hold keeps."),
]
APPENDING = [
    parameter(
        "mode",
        "query",
        {"enum": ["strict", "relaxed", "quorum"], "default": "strict"},
        "When it is answered: durable; accepted; durable here and at the replica.",
    ),
    parameter("type", "query", {"type": "integer", "minimum": 0, "maximum": 65535}, "The record's type."),
    parameter("label.NAME", "query", TEXT, f"A label of the record: {LABEL_WORDS}"),
    parameter(
        "label_header", "query", TEXT, "A header of the request that becomes a label, if it is there.", many=True
    ),
    parameter(
        "dedupe_header", "query", TEXT, "The header of the request that is the key, in the place of Idempotency-Key."
    ),
    parameter("not_before", "query", TEXT, "ISO 8601: no work queue delivers the record before that. Topics only."),
    parameter("Walsvc-Labels", "header", TEXT, "The record's labels, a JSON object."),
    parameter(
        "Idempotency-Key",
        "header",
        TEXT,
        "A repeat of the key writes nothing and gets the first one's answer, with 200.",
    ),
    parameter("If-Match", "header", TEXT, 'An LSN in quotes, "17", with which the topic, or the log, must end.'),
    parameter("If-None-Match", "header", {"const": "*"}, "The topic, or the log, must be empty."),
]


def records(tag: str, where: str) -> Schema:
    """POST, GET and DELETE of records."""
    page = {
        "application/x-ndjson": {"schema": TEXT},
        "text/event-stream": {"schema": TEXT},
    }
    return {
        "post": {
            "tags": [tag],
            "summary": f"Append to {where}",
            "description": "The body is the payload. With the media type application/x-ndjson each line, one JSON value, is a record's payload; all or none are appended.",
            "parameters": APPENDING,
            "requestBody": {
                "required": True,
                "content": {"*/*": {"schema": {}}, "application/x-ndjson": {"schema": TEXT}},
            },
            "responses": answers(
                s200=json_body(reference("schemas", "Appended"), "The Idempotency-Key had been used before."),
                s201=json_body(
                    {"oneOf": [reference("schemas", "Appended"), reference("schemas", "AppendedBatch")]}, "Durable."
                ),
                s202=json_body(reference("schemas", "Appended"), "Accepted (mode=relaxed)."),
                s412=reference("responses", "Problem"),
            ),
        },
        "get": {
            "tags": [tag],
            "summary": f"Read {where}",
            "description": "A page, as one Record a line; its header Link names the next one. With `Accept: text/event-stream`: what is there and what comes, each with its LSN as id.",
            "parameters": READING,
            "responses": answers(s200={"description": "Records.", "content": page}),
        },
        "delete": {
            "tags": [tag],
            "summary": f"Hide records of {where}",
            "description": "Those that one way names. `before` alone drops all below. A topic without any parameter goes as a whole, with its consumers.",
            "parameters": DELETING,
            "responses": answers(
                s200=json_body(
                    {"type": "object", "properties": {"purged": {"type": "integer"}}, "required": ["purged"]},
                    "How many records went, by lsn or keep.",
                ),
                s204=HIDDEN,
                s404=reference("responses", "Problem"),
                s409=reference("responses", "Problem"),
            ),
        },
    }


def record(tag: str) -> Schema:
    """GET and DELETE of one record."""
    body = {
        "description": "The payload as it is; type, time and labels as headers Walsvc-*.",
        "content": {"application/octet-stream": {"schema": {}}},
    }
    return {
        "get": {
            "tags": [tag],
            "summary": "One record's payload",
            "responses": answers(s200=body, s404=reference("responses", "Problem")),
        },
        "delete": {
            "tags": [tag],
            "summary": "Hide one record",
            "parameters": [parameter("If-Match", "header", TEXT, "The record's ETag: its LSN in quotes.")],
            "responses": answers(s204=HIDDEN, s404=reference("responses", "Problem")),
        },
    }


def verbs(tag: str) -> dict[str, Schema]:
    """The verbs of a work queue."""
    deliveries: Schema = {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 1000}
    done = {"description": "Done, durably."}

    def verb(words: str, fields: Schema, needed: list[str], **by_status: Schema) -> Schema:
        body: Schema = {"type": "object", "properties": fields, "additionalProperties": False}
        if needed:
            body["required"] = needed
        content = {"application/json": {"schema": body}}
        return {
            "post": {
                "tags": [tag],
                "summary": words,
                "requestBody": {"required": bool(needed), "content": content},
                "responses": answers(**by_status),
            }
        }

    lease: Schema = {
        "max_records": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1},
        "wait": {**SECONDS, "maximum": 60, "default": 0, "description": "Seconds to wait for a first record."},
        "start": {"oneOf": [LSN, {"enum": ["first", "next"]}], "description": "Where a new queue begins."},
        "lease": {"type": "number", "default": 30, "description": "Seconds that a record is out."},
        "max_deliveries": {"type": ["integer", "null"], "minimum": 1},
        "dead_letter": {"type": ["string", "null"]},
        "ordered_by": {"type": ["string", "null"]},
        "max_outstanding": {"type": "integer", "minimum": 1, "maximum": 20000},
    }
    given = json_body(
        {"type": "object", "properties": {"deliveries": {"type": "array", "items": reference("schemas", "Delivery")}}},
        "Records.",
    )
    lost = reference("responses", "Problem")
    return {
        "lease": verb(
            "Get the next records that are free", lease, [], s200=given, s204={"description": "None came in time."}
        ),
        "ack": verb("Records are done, all or none", {"deliveries": deliveries}, ["deliveries"], s204=done, s409=lost),
        "nak": verb(
            "Give records back", {"deliveries": deliveries, "delay": SECONDS}, ["deliveries"], s204=done, s409=lost
        ),
        "extend": verb(
            "Keep records for longer",
            {"deliveries": deliveries, "seconds": SECONDS},
            ["deliveries", "seconds"],
            s204=done,
            s409=lost,
        ),
        "seek": verb(
            "Go on at another record",
            {"to": {"oneOf": [LSN, {"enum": ["first", "next"]}]}},
            ["to"],
            s204={"description": "Durable. What is out is lost to those who have it."},
        ),
    }


def paths() -> dict[str, Schema]:
    """All paths, of the log of the directory and of a namespace."""
    found: dict[str, Schema] = {}
    for prefix in ("/v1", "/v1/namespaces/{namespace}"):
        space = (
            [parameter("namespace", "path", TEXT, "The log of a server with --namespaces.")] if "{" in prefix else []
        )
        topic = parameter("topic", "path", TEXT, "Its name, escaped as UTF-8: a slash is %2F.")
        lsn = parameter("lsn", "path", LSN, "Of the record.")
        consumer = parameter("consumer", "path", TEXT, "The queue's name.")
        listed = json_body({"type": "object", "properties": {"topics": {"type": "array", "items": TEXT}}}, "Names.")
        rows: dict[str, tuple[Schema, list[Schema]]] = {
            "/topics": (
                {"get": {"tags": ["topics"], "summary": "List the topics", "responses": answers(s200=listed)}},
                [],
            ),
            "/records": (records("log", "the log"), []),
            "/records/{lsn}": (record("log"), [lsn]),
            "/topics/{topic}": (records("topics", "a topic"), [topic]),
            "/topics/{topic}/{lsn}": (record("topics"), [topic, lsn]),
        }
        for name, each in verbs("queues").items():
            rows["/topics/{topic}/consumers/{consumer}/" + name] = (each, [topic, consumer])
            rows["/consumers/{consumer}/" + name] = (each, [consumer])
        for path, (operations, parameters) in rows.items():
            found[prefix + path] = {
                **operations,
                **({"parameters": [*space, *parameters]} if space or parameters else {}),
            }
    return found


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "walsvc",
        "version": __version__,
        "summary": "A durable log: 201 means that the record is on stable storage.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "security": [{"bearer": []}, {"basic": []}, {}],
    "paths": paths(),
    "components": {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "basic": {"type": "http", "scheme": "basic", "description": "The token is the password of any user."},
        },
        "schemas": {
            "Record": RECORD,
            "Appended": APPENDED,
            "AppendedBatch": APPENDED_BATCH,
            "Delivery": DELIVERY,
            "Problem": PROBLEM,
        },
        "responses": {
            "Problem": {
                "description": "What went wrong, and what to do.",
                "content": {"application/problem+json": {"schema": reference("schemas", "Problem")}},
            }
        },
    },
}
