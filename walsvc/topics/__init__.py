"""Topics of a log, and durable consumers of a topic or of the whole log."""
