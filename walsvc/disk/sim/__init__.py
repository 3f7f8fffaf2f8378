"""A simulated disk: deterministic, in memory, and as unkind as a real one may be. For tests, here and elsewhere.

Fault model. A test may rely on every line; tests/disk/sim checks them.

Contents and names are synced separately.
 1. A write is unsynced from `submit` on. A power cut keeps any subset of its sectors (512 or 4096 bytes), whatever
    became of other writes, older or newer; within a sector all or nothing.
 2. `submit` answers None only after its write is durable. sync_method "dsync": that write, no other. "fdatasync": every
    write of the file that had completed before the sync began. A sector goes out whole, so it takes along what older
    completed writes had put into it. The size follows the same rules; a cut keeps or loses it apart from the contents.
 3. A new name, a rename, a removal is durable only after a `sync_directory` that began later. A power cut undoes the
    last of them, any number (a metadata journal), or with `loose` any subset that is in order for each name. A rename
    is atomic. The sync of a new file does not save its name (ALICE, Pillai et al., OSDI 2014), unless `sync_names`.
 4. With `garbage`, a power cut may turn one sector of an unsynced write into noise, the whole sector; with
    `garbage_each`, one of each unsynced write.
 5. SIGKILL (`SimDevice.kill`) loses nothing that was written; writes in flight land in any part.

Order and time.
 6. Operations take about `latency` and finish in an order drawn by the seed; `stall_sync` holds all of them back.
 7. Writes in flight must not overlap, and their memory must not change: both are assertions.
 8. A reader sees each sector of a write in flight old or new.
 9. A cancelled cold call may still happen or not.

Errors.
10. Any operation fails with any errno at its nth call. A failed write leaves any subset of its sectors, unsynced.
11. A short write leaves a prefix and is reported as EIO.
12. After a failed sync, with a page cache (direct=False) the pages count as clean: readers see them, no later sync
    saves them (LWN 752063), and the cold `sync` makes them vanish. Without one the device has forgotten some of the sectors, and readers see that.
13. After a failed `sync_directory` the names stay unsynced; a later one that succeeds saves them.
14. `flip` damages the medium; `capacity` gives ENOSPC.

Not modelled: a page cache that evicts clean pages, sectors that rot by themselves, a disk that lies about a sync,
writes that land at a wrong place, subdirectories, threads.

The seed decides everything, so a failing run is replayed by its seed: `run_sim(main, seed)`. To cut the power at every
operation of a workload, set `device.on_operation` and take `device.crash_states(limit)` in it, or `device.fork()` for
later, and recover from each. The run that is looked at does not change by that.
"""

from walsvc.disk.sim.device import SimDevice
from walsvc.disk.sim.disk import SimDisk
from walsvc.disk.sim.faults import SimCrash, SimPowerOff
from walsvc.disk.sim.loop import SimDeadlock, SimLoop, run_sim, simulate

__all__ = ["SimCrash", "SimDeadlock", "SimDevice", "SimDisk", "SimLoop", "SimPowerOff", "run_sim", "simulate"]
