"""Log lines on standard error, fit for a terminal whatever names and messages of others are in them."""

from __future__ import annotations

import logging

from walsvc.visible import visible


class LogLines(logging.Formatter):
    """A record is one line; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """The line."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802  logging's name
        """The lines of a traceback."""
        return "\n".join(map(visible, super().formatException(ei).splitlines()))  # type: ignore[arg-type]


def install() -> None:
    """For what is logged where nobody has set up logging. What fails a log ends the verb, which says so itself."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogLines("%(message)s"))
        logging.lastResort.addFilter(lambda record: record.name != "walsvc.log")
