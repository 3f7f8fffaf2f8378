"""`walsvc restore`: make a log of a backup, or of a replica."""

from __future__ import annotations

from typing import Annotated

import typer

from walsvc.cli import exits, options, output, runner


@options.reaching("src")
def restore(
    src: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A backup, any log, or a replica: nats://host,host,host/stream, or tls://.",
            show_default=False,
        ),
    ],
    path: options.NewDirectory,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Make a log of a backup or of a replica.

    Checks everything on the way. PATH must not exist, or be an empty directory. A replica is not changed, and gives
    all that it has.
    """

    from walsvc.targets import STREAMS, scheme_of

    replica = options.is_url(src) and scheme_of(src) in STREAMS
    if not replica:
        options.directory_only(src)

    async def verb() -> int:
        from walsvc.cli.archive import progress
        from walsvc.log.offline.backup import copy_log

        if replica:
            from walsvc.engines.replication.restore import restore_replica

            with progress("restoring") as step:
                copied = await restore_replica(src, path, on_progress=step)
        else:
            copied = await copy_log(src, path, sparse=False, keys=options.keys_or_blind(key_file))
        output.copied(copied, path, as_json=as_json)
        return exits.OK

    runner.run(verb)
