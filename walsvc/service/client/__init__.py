"""The interface of Log, Topic and Consumer over a connection that may be lost and found again."""
