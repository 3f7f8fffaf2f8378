"""The table of commands, and the commands about a connection. What is not here is Redis's own unknown command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from walsvc import __version__
from walsvc.service.fronts.redis import claims, groups, info, options, streams, transactions, trimming
from walsvc.service.fronts.redis.client import DEFAULT_USER, NO_AUTH, Client
from walsvc.service.fronts.redis.collected import Entry
from walsvc.service.fronts.redis.replies import OK, Failure, Status, Verbatim
from walsvc.service.fronts.redis.requests import Command
from walsvc.service.fronts.redis.waiting import at_most
from walsvc.service.wire.methods import ADMIN, APPEND, CONSUME, READ

REDIS_VERSION = "7.0.0"  # whose commands and answers are meant
ARGUMENTS_SHOWN = 128  # bytes of an unknown command that its error repeats


def ping(client: Client, command: Command) -> Any:
    """PING [message]."""
    if len(command) > 2:
        raise options.wrong_number("ping")
    return command[1] if len(command) == 2 else Status("PONG")


def echo(client: Client, command: Command) -> bytes:
    """ECHO message."""
    return command[1]


def leave(client: Client, command: Command) -> Status:
    """QUIT."""
    client.leaving = True
    return OK


def reset(client: Client, command: Command) -> Status:
    """RESET: the connection is as if it had just come."""
    client.begin_again()
    return Status("RESET")


async def authenticate(client: Client, command: Command) -> Status:
    """AUTH [namespace] token."""
    if len(command) > 3:
        raise Failure(options.SYNTAX)
    await client.show(command[1] if len(command) == 3 else DEFAULT_USER, command[-1])
    return OK


async def hello(client: Client, command: Command) -> dict[str, Any]:
    """HELLO [version [AUTH namespace token] [SETNAME name]]."""
    resp, place, name, shown = client.resp, 2, client.name, None
    if len(command) > 1:
        resp = options.integer(command[1], "ERR Protocol version is not an integer or out of range")
        if resp not in (2, 3):
            raise Failure("NOPROTO unsupported protocol version")
    while place < len(command):
        word, more = command[place].upper(), len(command) - place - 1
        if word == b"AUTH" and more >= 2:
            shown, place = command[place + 1 : place + 3], place + 3
        elif word == b"SETNAME" and more:
            name, place = checked_name(command[place + 1]), place + 2
        else:
            raise Failure(f"ERR Syntax error in HELLO option '{command[place].decode('latin-1')}'")
    if shown is not None:
        await client.show(*shown)
    if client.grant is None:
        raise Failure(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> "
            "<pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
        )
    client.resp, client.name = resp, name
    return {
        "server": "walsvc",
        "version": __version__,
        "proto": resp,
        "id": client.number,
        "mode": "standalone",
        "role": "master",
        "modules": [],
    }


async def select(client: Client, command: Command) -> Status:
    """SELECT index."""
    index = options.integer(command[1])
    if index < 0:
        raise Failure("ERR DB index is out of range")
    await client.select(index)
    return OK


def checked_name(name: bytes) -> bytes:
    """Check the name that a client gives itself."""
    if any(not 33 <= letter <= 126 for letter in name):
        raise Failure("ERR Client names cannot contain spaces, newlines or special characters.")
    return name


def about(client: Client, command: Command) -> Any:
    """CLIENT ID, GETNAME, SETNAME, SETINFO, NO-EVICT, HELP."""
    return options.subcommand(command, ABOUT)(client, command)


def name_oneself(client: Client, command: Command) -> Status:
    """CLIENT SETNAME name."""
    client.name = checked_name(command[2])
    return OK


def tell_library(client: Client, command: Command) -> Status:
    """CLIENT SETINFO LIB-NAME | LIB-VER text."""
    what = command[2].upper()
    if what not in (b"LIB-NAME", b"LIB-VER"):
        raise Failure(f"ERR Unrecognized option '{command[2].decode('latin-1')}'")
    client.about[what] = checked_name(command[3])
    return OK


def stay(client: Client, command: Command) -> Status:
    """CLIENT NO-EVICT ON | OFF: no client is sent away for another's sake, so there is nothing to do."""
    if command[2].upper() not in (b"ON", b"OFF"):
        raise Failure(options.SYNTAX)
    return OK


ABOUT_HELP = (
    *("GETNAME | SETNAME <name>", "    The name of this connection."),
    *("ID", "    Its number."),
    *("SETINFO <LIB-NAME | LIB-VER> <value>", "    Say which library asks."),
    *("NO-EVICT (ON|OFF)", "    Nothing: no client is evicted."),
)
ABOUT: dict[bytes, tuple[int, int, Callable[[Client, Command], Any]]] = {
    b"ID": (2, 2, lambda client, command: client.number),
    b"GETNAME": (2, 2, lambda client, command: client.name or None),
    b"SETNAME": (3, 3, name_oneself),
    b"SETINFO": (4, 4, tell_library),
    b"NO-EVICT": (3, 3, stay),
    b"HELP": (2, 2, lambda client, command: options.usage("CLIENT", ABOUT_HELP)),
}


def describe(client: Client, command: Command) -> Any:
    """COMMAND [COUNT | INFO name ... | DOCS name ... | HELP]."""
    word = command[1].upper() if len(command) > 1 else b"INFO"
    if word == b"COUNT":
        if len(command) > 2:
            raise options.wrong_number("command|count")
        return len(COMMANDS)
    if word == b"HELP":
        if len(command) > 2:
            raise options.wrong_number("command|help")
        return options.usage("COMMAND", DESCRIBE_HELP)
    if word not in (b"INFO", b"DOCS"):
        raise options.unknown_subcommand(command)
    names = command[2:] or list(COMMANDS)
    if word == b"DOCS":
        return {name.lower(): documented(COMMANDS[name.upper()]) for name in names if name.upper() in COMMANDS}
    return [described(name.upper()) for name in names]


DESCRIBE_HELP = (
    *("COUNT", "    How many commands there are."),
    *("INFO [<command-name> ...]", "    Arity, flags and keys of these commands, or of all."),
    *("DOCS [<command-name> ...]", "    What these commands do, or all."),
)


def documented(entry: Entry) -> dict[str, str]:
    """A command as COMMAND DOCS tells of it."""
    return {"summary": (entry.call.__doc__ or "").partition("\n")[0], "since": __version__, "group": "walsvc"}


def described(name: bytes) -> list[Any] | None:
    """A command as COMMAND tells of it: name, arity, flags, where its keys are."""
    entry = COMMANDS.get(name)
    if entry is None:
        return None
    flags = [Status("write")] if entry.right in (APPEND, ADMIN) else [Status("readonly")] if entry.right == READ else []
    return [name.lower(), entry.arity, flags, *entry.keys]


async def tell(client: Client, command: Command) -> Verbatim:
    """INFO [section ...]: what clients look for, and the log's own numbers. Others are in /metrics."""
    stats = client.log.stats()
    sections: dict[str, dict[str, object]] = {
        "server": {"redis_version": REDIS_VERSION, "redis_mode": "standalone", "walsvc_version": __version__},
        "clients": {"connected_clients": len(client.shared.roster), "blocked_clients": client.members.waiting},
        "persistence": {"loading": 0, "aof_enabled": 1, "walsvc_durable_lsn": stats.durable_lsn},
        "replication": {"role": "master", "connected_slaves": 0 if client.log.replicated_lsn is None else 1},
        "keyspace": {"db0": f"keys={len(client.log.topics())},expires=0,avg_ttl=0"},
    }
    wanted = {word.decode("latin-1").lower() for word in command[1:]} or {"default"}
    everything = not wanted.isdisjoint({"default", "all", "everything"})
    texts = [
        f"# {name.capitalize()}\r\n" + "".join(f"{key}:{value}\r\n" for key, value in lines.items())
        for name, lines in sections.items()
        if everything or name in wanted
    ]
    return Verbatim("\r\n".join(texts))


async def wait(client: Client, command: Command) -> int:
    """WAIT replicas milliseconds: how many replicas have this client's entries by then; 0 or 1."""
    wanted = options.integer(command[1])
    return await replicas(client, options.milliseconds(command[2]), wait_for_it=wanted > 0)


async def wait_aof(client: Client, command: Command) -> list[int]:
    """WAITAOF local replicas milliseconds: [1, how many replicas]. Every answered entry is on stable storage here."""
    local, wanted = options.integer(command[1]), options.integer(command[2])
    if not 0 <= local <= 1:
        raise Failure("ERR value is out of range, must be between 0 and 1")
    if wanted < 0:
        raise Failure("ERR value is out of range, must be positive")
    return [1, await replicas(client, options.milliseconds(command[3]), wait_for_it=wanted > 0)]


async def replicas(client: Client, milliseconds: int, *, wait_for_it: bool) -> int:
    """How many replicas have what this client has added, and, where it is to be waited for, what was acknowledged."""
    if client.log.replicated_lsn is None:
        return 0
    there = client.log.replicated_lsn >= client.written
    if wait_for_it:
        there = False
        async with at_most(milliseconds):
            await client.log.wait_replicated(client.written)
            there = True
    return int(there)


COMMANDS: dict[bytes, Entry] = {
    b"AUTH": Entry(authenticate, -2, None, early=True),
    b"CLIENT": Entry(about, -2, None, waits=False),
    b"COMMAND": Entry(describe, -1, None, waits=False),
    b"DBSIZE": Entry(streams.dbsize, 1, READ),
    b"DEL": Entry(trimming.delete, -2, ADMIN, keys=(1, -1, 1)),
    b"DISCARD": Entry(transactions.discard, 1, None, waits=False),
    b"ECHO": Entry(echo, 2, None, waits=False, idle=True),
    b"EXEC": Entry(transactions.execute, 1, None),
    b"EXISTS": Entry(streams.exists, -2, READ, keys=(1, -1, 1)),
    b"HELLO": Entry(hello, -1, None, early=True),
    b"INFO": Entry(tell, -1, READ),
    b"KEYS": Entry(streams.keys, 2, READ),
    b"MULTI": Entry(transactions.multi, 1, None, waits=False),
    b"PING": Entry(ping, -1, None, waits=False, idle=True),
    b"QUIT": Entry(leave, -1, None, waits=False, early=True),
    b"RESET": Entry(reset, 1, None, waits=False, early=True),
    b"SCAN": Entry(streams.scan, -2, READ),
    b"SELECT": Entry(select, 2, None),
    b"TYPE": Entry(streams.type_of, 2, READ, keys=(1, 1, 1)),
    b"UNLINK": Entry(trimming.delete, -2, ADMIN, keys=(1, -1, 1)),
    b"UNWATCH": Entry(transactions.unwatch, 1, None, waits=False),
    b"WAIT": Entry(wait, 3, APPEND),
    b"WAITAOF": Entry(wait_aof, 4, APPEND),
    b"XADD": Entry(streams.xadd_with_options, -5, APPEND, keys=(1, 1, 1), joins=True),
    b"WATCH": Entry(transactions.watch, -2, READ, keys=(1, -1, 1)),
    b"XACK": Entry(groups.xack, -4, CONSUME, keys=(1, 1, 1), joins=True),
    b"XAUTOCLAIM": Entry(claims.xautoclaim, -6, CONSUME, keys=(1, 1, 1)),
    b"XCLAIM": Entry(claims.xclaim, -6, CONSUME, keys=(1, 1, 1)),
    b"XDEL": Entry(trimming.xdel, -3, ADMIN, keys=(1, 1, 1)),
    b"XGROUP": Entry(groups.xgroup, -2, CONSUME, keys=(2, 2, 1)),
    b"XINFO": Entry(info.xinfo, -2, READ, keys=(2, 2, 1)),
    b"XLEN": Entry(streams.xlen, 2, READ, keys=(1, 1, 1)),
    b"XPENDING": Entry(claims.xpending, -3, CONSUME, keys=(1, 1, 1), idle=True),
    b"XRANGE": Entry(streams.xrange, -4, READ, keys=(1, 1, 1)),
    b"XREAD": Entry(streams.xread, -4, READ),
    b"XREADGROUP": Entry(groups.xreadgroup, -7, CONSUME),
    b"XREVRANGE": Entry(streams.xrevrange, -4, READ, keys=(1, 1, 1)),
    b"XTRIM": Entry(trimming.xtrim, -4, ADMIN, keys=(1, 1, 1)),
}


ADD = COMMANDS[b"XADD"]
PLAIN_ADD = ADD._replace(call=streams.xadd, waits=False)


def find(client: Client, command: Command) -> Entry:
    """The entry of a command that this client may call. Raises Failure in Redis's words."""
    entry = COMMANDS.get(command[0]) or COMMANDS.get(command[0].upper())
    if entry is None:
        raise unknown(command)
    if len(command) != entry.arity if entry.arity > 0 else len(command) < -entry.arity:
        wrong = options.wrong_number(command[0].decode("latin-1").lower())
        raise transactions.abort(client, wrong) if entry.call is transactions.execute else wrong
    if client.grant is None:
        if not entry.early:
            raise Failure(NO_AUTH)
    elif entry.right is not None and entry.right not in client.grant.rights:
        name = command[0].decode("latin-1").lower()
        raise Failure(f"NOPERM this token has no right to run the '{name}' command")
    return PLAIN_ADD if entry is ADD and command[2] == b"*" else entry


def unknown(command: Command) -> Failure:
    """The error for an unknown command."""
    shown = ""
    for each in command[1:]:
        if len(shown) >= ARGUMENTS_SHOWN:
            break
        shown += f"'{each[: ARGUMENTS_SHOWN - len(shown)].decode('latin-1')}' "
    name = command[0][:ARGUMENTS_SHOWN].decode("latin-1")
    return Failure(f"ERR unknown command '{name}', with args beginning with: {shown}")
