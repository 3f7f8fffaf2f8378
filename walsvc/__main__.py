"""`python -m walsvc`, and the script `walsvc`."""

from __future__ import annotations

import signal
import sys

from walsvc.cli import interrupt


def main() -> None:
    """See walsvc.cli.main.main. Ctrl-C is quiet already while that is imported, which takes a tenth of a second."""
    interrupt.replace(signal.default_int_handler, interrupt.end)
    from walsvc.cli import exits
    from walsvc.extras import installed, missing

    for module in ("typer", "rich"):
        if not installed(module):
            sys.stderr.write(f"walsvc: {missing(module, 'the command line')}\n")
            sys.exit(exits.USAGE)
    from walsvc.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
