"""Explore crashes for a while: python -m tests.crash.explore --seconds 600 --seed 1

Prints its seeds and what it saw. A failure prints the seed, where it happened, and the command that shows it again; the
exit code is 1 then. The same seed does the same in every process, as long as log and tests are the same.
"""

from __future__ import annotations

import sys
import time
import traceback

from .campaigning import first_of, seeds_from, seeds_parser
from .explorer import Explorer, replay_command
from .plan import Plan

TELL_EVERY_S = 30.0


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = seeds_parser("python -m tests.crash.explore", "Explore simulated crashes.")
    parser.add_argument("--double-write", action="store_true", help="logs with the double-write file, mostly packed")
    parser.add_argument("--encrypted", action="store_true", help="encrypted logs that change their keys")
    options = parser.parse_args(arguments)
    started = told = time.monotonic()
    draw = Plan.draw_double_write if options.double_write else Plan.draw
    explorer = Explorer(draw=Plan.draw_encrypted if options.encrypted else draw)
    first, count = first_of(options), 0
    for seed in seeds_from(first, options):
        try:
            explorer.explore(seed)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            traceback.print_exception(error)
            print(
                f"FAILED with seed {seed} after {time.monotonic() - started:.0f} s: {explorer.tally}", file=sys.stderr
            )
            print(
                f"replay: {replay_command(seed)}{' --double-write' * options.double_write}{' --encrypted' * options.encrypted}",
                file=sys.stderr,
            )
            return 1
        count += 1
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            print(f"{told - started:.0f} s: {explorer.tally}", flush=True)
    explorer.close()
    print(f"no violation in {time.monotonic() - started:.0f} s, seeds {first} to {first + count - 1}: {explorer.tally}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
