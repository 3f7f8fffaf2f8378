"""The thing to beat while being correct: a group commit of 30 lines, without CRC, framing, rotation or recovery.

It writes with the page cache into a file that grows, and fdatasyncs in a thread.
"""

import os

from common import Collector, Load, drive, main


async def peer(load: Load) -> dict[str, object]:
    file = os.open(os.path.join(load.dir, "naive.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def commit(payloads: list[bytes]) -> None:
        os.write(file, b"".join(payloads))
        os.fdatasync(file)

    return await drive(load, Collector(commit).append)


main(peer)
