"""`walsvc restore`: make a log of a backup."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, options, output, runner


def restore(
    src: Annotated[str, typer.Argument(metavar="SRC", help="A backup, or any log.", show_default=False)],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A directory that does not exist yet.", show_default=False)
    ],
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Make a log at PATH from the backup SRC, checking everything on the way.

    PATH must not exist, or be an empty directory.
    """

    async def verb() -> int:
        import dataclasses

        from walsvc.log.backup import copy_log

        copied = await copy_log(src, path, sparse=False, keys=options.keys_or_blind(key_file))
        if as_json:
            output.emit_json({"path": path, **dataclasses.asdict(copied)})
        else:
            held = (
                f"LSN {copied.first_lsn} to {copied.next_lsn - 1}"
                if copied.next_lsn > copied.first_lsn
                else "no records"
            )
            output.echo(f"{held}, {copied.segments} segments, {output.size(copied.bytes)} in use: {path}")
        return exits.OK

    runner.run(verb)
