"""The options with which cat and tail say which records are wanted."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from walsvc.cli.purge import labels_of

if TYPE_CHECKING:
    from walsvc.log.read.filter import Wanted

Topic = Annotated[str | None, typer.Option(help="Only records of this topic.")]
Types = Annotated[
    list[int] | None,
    typer.Option(
        "--type", metavar="TYPE", min=0, max=0xFFFF, help="Only records of this type; may be given repeatedly."
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Only records with this label; all labels must fit, and one of the values where a label is given repeatedly.",
    ),
]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only records from this time on, ISO 8601; UTC if it names no zone.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only records before this time.")]


def wanted_of(
    topic: str | None, types: list[int] | None, where: list[str] | None, since: str | None, until: str | None = None
) -> Wanted:
    """The arguments for reading that the options make; nothing for an option that was not given."""
    wanted: Wanted = {}
    if topic is not None:
        wanted["topic"] = topic
    if types:
        wanted["types"] = set(types)
    if where:
        values: dict[str, list[Any]] = {}
        for pair in where:
            for label, value in labels_of([pair]).items():
                values.setdefault(label, []).append(value)
        wanted["where"] = values
    if since is not None:
        wanted["since"] = moment_of("--since", since)
    if until is not None:
        wanted["until"] = moment_of("--until", until)
    return wanted


def moment_of(option: str, text: str) -> datetime.datetime:
    """The moment that ISO 8601 text names."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r} is not ISO 8601, such as 2026-01-31T12:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)
