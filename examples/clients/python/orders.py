"""A worker over `walsvc serve --data data --unix data.sock --redis 127.0.0.1:6380`, with redis-py: pip install redis; python orders.py [PORT]"""

import sys

import redis


def main(port: int) -> None:
    log = redis.Redis(port=port, decode_responses=True)
    for item in ("book", "lamp", "chair"):
        log.xadd("orders", {"item": item})  # on stable storage when it returns
    try:
        log.xgroup_create("orders", "workers", id="0")
    except redis.ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):  # it is there since an earlier run
            raise
    while read := log.xreadgroup("workers", "worker-1", {"orders": ">"}, count=2):
        for entry, fields in read[0][1]:
            print("done", fields["item"])
            log.xack("orders", "workers", entry)
    print("pending", log.xpending("orders", "workers")["pending"])


main(int(sys.argv[1]) if len(sys.argv) > 1 else 6380)
