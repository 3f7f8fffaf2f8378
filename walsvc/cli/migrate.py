"""`walsvc migrate`: bring a log of an older format version up to the present one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, output, runner
from walsvc.visible import counted

if TYPE_CHECKING:
    from walsvc.log.offline.migration import Migration


def migrate(
    path: options.LogPath,
    apply: Annotated[
        bool,
        typer.Option("--apply/--dry-run", help="Migrate; without this option the command only says what it would do."),
    ] = False,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Bring a log of an older format version up to the present one.

    Says what it would do, and changes nothing, unless --apply is given. Copy the log first: older versions of walsvc do not
    read it afterwards. Killed at any moment, nothing is lost; run it again to go on. With --apply it needs the log for
    itself.
    """

    async def verb() -> int:
        import walsvc
        from walsvc.bench import machine

        done = await walsvc.migrate(path, dry_run=not apply, keys=options.keys_of(key_file))
        if as_json:
            import dataclasses

            output.emit_json(dataclasses.asdict(done))
        else:
            show(done)
            if not apply and (writer := machine.lock_holder(path)) is not None:
                output.echo(f"process {writer} has it open for writing: this is how it looks at this moment")
        return exits.OK

    runner.run(verb)


def show(done: Migration) -> None:
    """Print a migration for people."""
    if not done.segments:
        output.echo(f"nothing to migrate: format version of {counted(done.present, 'segment')}: {done.version}")
        return
    for name, version in zip(done.segments, done.versions, strict=True):
        output.echo(f"{name}: version {version} to {done.version}")
    if done.applied:
        output.echo(f"{counted(len(done.segments), 'segment')} migrated")
    else:
        output.echo(f"{counted(len(done.segments), 'segment')} to migrate; nothing was changed, --apply does it")
