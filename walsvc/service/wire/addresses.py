"""Addresses to listen on: `HOST:PORT`, and which of them other machines can reach."""

from __future__ import annotations

import ipaddress

from walsvc.errors import BadOption


def host_and_port(text: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:7421", "localhost:0" or "[::1]:7421"; BadOption for anything else.

    Port 0 stands for any that is free. No name is looked up.
    """
    host, colon, digits = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    plain = digits.isascii() and digits.isdigit() and len(digits) <= 5
    if not (colon and name and plain and int(digits) <= 0xFFFF) or (":" in name) != bracketed:
        raise BadOption(f"{text!r} is no address to listen on", hint="HOST:PORT, such as 127.0.0.1:7421 or [::1]:7421")
    return name, int(digits)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: a loopback address, or the name localhost. No name is looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
