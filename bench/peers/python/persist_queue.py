"""persist-queue: SQLiteQueue with auto_commit, its documented way to have every item on disk when put() returns.

(With auto_commit=False and one task_done() for many put() it syncs as often, so there is no batched form.)
"""

from common import Load, drive, in_threads, main
from persistqueue import SQLiteQueue


async def peer(load: Load) -> dict[str, object]:
    queue = SQLiteQueue(load.dir, multithreading=True, auto_commit=True)
    answer = await drive(load, in_threads(queue.put, 1))
    queue.close()
    return answer


main(peer)
