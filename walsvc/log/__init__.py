"""The log: buffer, commit, recovery, reading, retention."""
