"""rocksdict (RocksDB) with WriteOptions.sync. RocksDB joins writers that wait at once into one group by itself."""

import itertools
import os

from common import Collector, Load, drive, in_threads, main
from rocksdict import Options, Rdict, WriteBatch, WriteOptions


async def peer(load: Load) -> dict[str, object]:
    database = Rdict(os.path.join(load.dir, "rocks"), options=Options(raw_mode=True))
    sync = WriteOptions()
    sync.sync = True
    keys = itertools.count()

    def put(payload: bytes) -> None:
        database.put(next(keys).to_bytes(8, "big"), payload, write_opt=sync)

    def commit(payloads: list[bytes]) -> None:
        batch = WriteBatch(raw_mode=True)
        for payload in payloads:
            batch.put(next(keys).to_bytes(8, "big"), payload)
        database.write(batch, write_opt=sync)

    append = Collector(commit).append if load.batched else in_threads(put, min(load.tasks, 64))
    answer = await drive(load, append)
    database.close()
    return answer


main(peer)
