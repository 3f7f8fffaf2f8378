"""Sealed segments in object storage, and the log as it was at any moment."""

from walsvc.engines.archive.archiver import Archiver as Archiver
from walsvc.engines.archive.push import Archive as Archive
