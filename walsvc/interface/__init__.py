"""The interface of a log, its topics and its consumers, wherever the log is: in a directory, behind a server, in JetStream.

`walsvc.Log`, `walsvc.Topic` and `walsvc.Consumer` are these protocols: for annotations, for isinstance, for type checkers. A program
can rely on the calls that stand here, and on no others. Each kind of log has its own classes, whose docstrings say what is special
about them.
"""

from __future__ import annotations

from walsvc.interface.appending import Appending as Appending
from walsvc.interface.consumer import Consumer as Consumer
from walsvc.interface.log import Log as Log
from walsvc.interface.topic import Topic as Topic
