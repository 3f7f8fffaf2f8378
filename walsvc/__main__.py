"""`python -m walsvc`, and the script `walsvc`."""

from __future__ import annotations

import signal

from walsvc.cli import interrupt


def main() -> None:
    """See walsvc.cli.main.main. Ctrl-C is quiet already while that is imported, which takes a tenth of a second."""
    interrupt.replace(signal.default_int_handler, interrupt.end)
    from walsvc.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
