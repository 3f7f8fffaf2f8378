"""lmdb with its default, which is a sync for each transaction; keys ascend, so MDB_APPEND applies.

LMDB has one writer at a time, so one thread writes.
"""

import itertools

import lmdb
from common import Collector, Load, drive, in_threads, main


async def peer(load: Load) -> dict[str, object]:
    environment = lmdb.open(load.dir, map_size=16 << 30, sync=True, metasync=True)
    keys = itertools.count()

    def put(payload: bytes) -> None:
        with environment.begin(write=True) as transaction:
            transaction.put(next(keys).to_bytes(8, "big"), payload, append=True)

    def commit(payloads: list[bytes]) -> None:
        with environment.begin(write=True) as transaction:
            for payload in payloads:
                transaction.put(next(keys).to_bytes(8, "big"), payload, append=True)

    answer = await drive(load, Collector(commit).append if load.batched else in_threads(put, 1))
    environment.close()
    return answer


main(peer)
