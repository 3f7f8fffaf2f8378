"""walsvc itself, as a peer among the peers: default options, Strict."""

from common import Load, drive, main

import walsvc


async def peer(load: Load) -> dict[str, object]:
    async with walsvc.open(load.dir) as log:
        return await drive(load, log.append)


main(peer)
