"""The log as a service: wire (the protocol), server, client, ops (a server as a process)."""
