"""Redis Streams in front of a log: clients of any language append, read and work through groups over RESP. See docs/REDIS.md.

    requests  bytes to commands                     pure
    replies   values to bytes, RESP2 and RESP3      pure
    entries   ids, and fields as payloads           pure
    options   what may stand behind a command       pure
    commands  the table, and the commands about a connection
    streams   the commands about keys
    groups    the commands about groups, claims those about what others have, and info what there is to know
    transactions  MULTI and EXEC
    members   who is a consumer of a group
    client    one client: its log and its rights
    session   its connection: answers in order
    listening where they come

It is an adapter over walsvc.Log: what a command does, a Python program can do by one call.
"""
