"""`walsvc repair`: keep the longest undamaged beginning of a log, after a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, output, runner

if TYPE_CHECKING:
    from walsvc.log.repair import Plan


def repair(
    path: options.LogPath,
    apply: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Do it, after a copy of all files; without it, only explain.")
    ] = False,
    as_json: options.AsJson = False,
    key_file: options.KeyFile = None,
) -> None:
    """Keep the longest undamaged beginning of a damaged log.

    Explains what it would keep and what is lost, and changes nothing, unless --apply is given. Then it first copies all
    files to PATH.before-repair-TIME. A torn tail needs no repair: opening the log drops it.

    Ends with 0 when nothing is to be repaired or the repair is done, with 3 when something is to be repaired, or when not
    even the first segment can be kept. Needs the log for itself.
    """

    async def verb() -> int:
        import asyncio
        import dataclasses

        import walsvc
        from walsvc.disk.choose import open_disk
        from walsvc.log.inspect import reading
        from walsvc.log.repair import apply_repair, copy_aside, plan_repair

        keys = options.keys_of(key_file)
        async with reading(path):  # says that there is no log, before anything is created
            pass
        config = walsvc.WalConfig()
        disk = await open_disk(path, config=config, loop=asyncio.get_running_loop(), exclusive=True)
        try:
            plan = await plan_repair(disk, keys)
            copy = None
            if plan.reasons and apply:
                copy = await copy_aside(disk.path)
                await apply_repair(disk, plan, config.segment_bytes, keys)
        finally:
            await disk.close()
        if as_json:
            output.emit_json({**dataclasses.asdict(plan), "applied": copy is not None, "copy": copy})
        else:
            show(plan, copy)
        return exits.CORRUPTION if plan.reasons and copy is None else exits.OK

    runner.run(verb)


def show(plan: Plan, copy: str | None) -> None:
    """Print a plan for people."""
    if not plan.reasons:
        output.echo("nothing to repair")
        return
    for reason in plan.reasons:
        output.echo(f"damaged: {reason}")
    kept = f"LSN {plan.keep_from} to {plan.keep_to}" if plan.keep_to >= plan.keep_from else "no records"
    would = "" if copy else "would be "
    output.echo(f"{would}kept:   {kept}, in {len(plan.keep)} segments")
    if plan.lost_to > plan.keep_to:
        output.echo(f"{would}lost:   LSN {plan.keep_to + 1} to {plan.lost_to} at least; {len(plan.drop)} files go")
    if copy:
        output.echo(f"all files as they were: {copy}")
    else:
        output.echo("nothing was changed; --apply does it, after a copy of all files")
