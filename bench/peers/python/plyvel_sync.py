"""plyvel (LevelDB) with sync=True. LevelDB joins writers that wait at once into one group by itself."""

import itertools
import os

import plyvel
from common import Collector, Load, drive, in_threads, main


async def peer(load: Load) -> dict[str, object]:
    database = plyvel.DB(os.path.join(load.dir, "level"), create_if_missing=True)
    keys = itertools.count()

    def put(payload: bytes) -> None:
        database.put(next(keys).to_bytes(8, "big"), payload, sync=True)

    def commit(payloads: list[bytes]) -> None:
        with database.write_batch(sync=True) as batch:
            for payload in payloads:
                batch.put(next(keys).to_bytes(8, "big"), payload)

    append = Collector(commit).append if load.batched else in_threads(put, min(load.tasks, 64))
    answer = await drive(load, append)
    database.close()
    return answer


main(peer)
