"""Log lines on standard error, fit for a terminal whatever names and messages of others are in them."""

from __future__ import annotations

import logging

from walsvc.visible import visible


class LogLines(logging.Formatter):
    """A record is one line; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """The record as a line that is fit to be shown."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802  logging's name
        """The traceback as lines that are fit to be shown."""
        return "\n".join(map(visible, super().formatException(ei).splitlines()))  # type: ignore[arg-type]


def install() -> None:
    """Show log lines where the program has not set up logging. What fails a log is left out: the verb ends with it as its error."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogLines("%(message)s"))
        logging.lastResort.addFilter(lambda record: record.name != "walsvc.log")
