"""`walsvc repair`: keep the longest undamaged beginning of a log, after a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from walsvc.cli import exits, options, output, runner
from walsvc.visible import counted

if TYPE_CHECKING:
    from walsvc.keyring import KeyRing
    from walsvc.log.offline.repair import RepairPlan


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
    even the first segment can be kept. With --apply it needs the log for itself.
    """

    async def verb() -> int:
        import dataclasses

        from walsvc.bench import machine
        from walsvc.log.offline.inspect import reading
        from walsvc.log.offline.repair import look_at, segment_files

        keys = options.keys_of(key_file)
        async with reading(path) as disk:
            await segment_files(disk)
            if not apply:
                plan, copy = await look_at(disk, keys), None
        if apply:
            plan, copy = await repaired(path, keys)
        writer = None if apply else machine.lock_holder(path)
        if as_json:
            told = {**dataclasses.asdict(plan), "applied": copy is not None, "copy": copy, "writer_pid": writer}
            output.emit_json(told)
        else:
            show(plan, copy, writer)
        return exits.CORRUPTION if plan.reasons and copy is None else exits.OK

    runner.run(verb)


async def repaired(path: str, keys: KeyRing | None) -> tuple[RepairPlan, str | None]:
    """Lock the log, plan, copy everything aside and carry the plan out; the copy is None where nothing was to be done."""
    import asyncio

    from walsvc.config import WalConfig
    from walsvc.disk.choose import open_disk
    from walsvc.log.offline.repair import apply_repair, copy_aside, plan_repair

    config = WalConfig()
    disk = await open_disk(path, config=config, loop=asyncio.get_running_loop(), exclusive=True)
    try:
        plan = await plan_repair(disk, keys)
        if not plan.reasons:
            return plan, None
        copy = await copy_aside(disk.path)
        await apply_repair(disk, plan, config.segment_bytes, keys)
        return plan, copy
    finally:
        await disk.close()


def show(plan: RepairPlan, copy: str | None, writer: int | None) -> None:
    """Print a plan for people."""
    if plan.reasons:
        explain(plan, copy)
    else:
        output.echo("nothing to repair")
    if writer is not None:
        output.echo(f"process {writer} has it open for writing: this is how it looks at this moment")


def explain(plan: RepairPlan, copy: str | None) -> None:
    """Show the damage, the records that stay and the records that go."""
    for reason in plan.reasons:
        output.echo(f"damaged: {reason}")
    kept = f"LSN {plan.keep_from} to {plan.keep_to}" if plan.keep_to >= plan.keep_from else "no records"
    would = "" if copy else "would be "
    output.echo(f"{would}kept:   {kept}, in {counted(len(plan.keep), 'segment')}")
    if plan.lost_to > plan.keep_to:
        output.echo(
            f"{would}lost:   LSN {plan.keep_to + 1} to {plan.lost_to} at least, with {counted(len(plan.drop), 'file')}"
        )
    elif plan.grow:
        output.echo(f"{would}lost:   what stood in the end of a file that was cut, if anything did")
    if copy:
        output.echo(f"all files as they were: {copy}")
    else:
        output.echo("nothing was changed; --apply does it, after a copy of all files")
