"""A server as a process: settings, signals, the HTTP side, metrics, the status page."""
