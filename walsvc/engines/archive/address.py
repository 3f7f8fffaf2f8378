"""The address of an archive: a URL, or a directory's path; read and checked without looking into the archive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from walsvc.errors import BadOption, PathError
from walsvc.extras import need
from walsvc.targets import SERVED, STREAMS, host_and_port, parse_url, scheme_of, shown, text_of

ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")  # variables that obstore takes for an endpoint
EXAMPLE = "for example s3://bucket/prefix or file:///directory"


def checked_address(target: str | bytes | os.PathLike[Any]) -> str:
    """The URL of an archive, as far as that can be told without looking into it. Raises BadOption; PathError where it is a file."""
    need("obstore", "an archive")
    address = address_of(target)
    check_endpoint(address)
    if address.startswith("file:"):
        directory = local_directory(address)
        if os.path.exists(directory) and not os.path.isdir(directory):
            raise PathError("the archive is no directory", path=directory, hint="choose another one")
    return address


def check_endpoint(url: str) -> None:
    """BadOption for an endpoint in the environment on which the client of S3 breaks down: one without a scheme or host."""
    if not url.startswith(("s3://", "s3a://")):
        return
    for name in ENDPOINTS:
        endpoint = os.environ.get(name, "")
        try:
            parts = parse_url(endpoint, EXAMPLE)
            good = parts.scheme in ("http", "https") and host_and_port(parts.place, 80)[1] != 0
        except BadOption:
            good = False
        if endpoint and not good:
            raise BadOption(f"{name} is {endpoint!r}, no URL", hint="for example http://localhost:9000")


def nothing_archived(url: str) -> BadOption:
    """The error for a URL below which there is no archive."""
    hint = "check the URL; a segment is archived once it is sealed"
    return BadOption("nothing is archived at this URL", path=url, hint=hint)


def address_of(target: str | bytes | os.PathLike[Any]) -> str:
    """The URL of an archive, which may be given as a directory's path. Raises BadOption, PathError."""
    if scheme_of(target) is None:
        return Path(os.path.abspath(text_of(target))).as_uri()
    url = text_of(target)
    parts = parse_url(url, EXAMPLE)
    if parts.scheme in {*SERVED, *STREAMS}:
        raise BadOption(f"{shown(url)!r} is a log and no archive", hint=EXAMPLE)
    if parts.login or parts.options:
        raise BadOption(
            "the URL of an archive holds neither a login nor options",
            path=shown(url),
            hint="give them in the environment, as to the store's own tools (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)",
        )
    if parts.scheme == "file":
        if parts.place not in ("", "localhost") or not parts.path or "\0" in unquote(parts.path):
            raise BadOption(
                f"{shown(url)!r} names no directory of this machine", hint="file:///directory, with an absolute path"
            )
        return f"file://{parts.path}"
    if not parts.place and parts.scheme != "memory":
        raise BadOption(f"{shown(url)!r} names no bucket", hint=EXAMPLE)
    return f"{parts.scheme}://{parts.place}{parts.path}"


def local_directory(url: str) -> str:
    """The directory that a file: URL of `address_of` names."""
    return unquote(url.removeprefix("file://"))
