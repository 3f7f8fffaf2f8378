"""`walsvc backup`: copy a log beside its writer."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, options, output, runner


def backup(
    path: options.LogPath,
    dest: Annotated[
        str,
        typer.Argument(
            metavar="DEST",
            help="A directory that does not exist yet, or is empty.",
            show_default=False,
            callback=options.directory_only,
        ),
    ],
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Copy the log to DEST, checking everything on the way.

    Works beside a program that is writing it: the copy holds at least what was durable when it began. It is a log itself.
    """

    async def verb() -> int:
        from walsvc.log.offline.backup import copy_log

        copied = await copy_log(path, dest, sparse=True, keys=options.keys_or_blind(key_file))
        output.copied(copied, dest, as_json=as_json)
        return exits.OK

    runner.run(verb)
