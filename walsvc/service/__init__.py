"""The log as a service: protocol, server, client."""
