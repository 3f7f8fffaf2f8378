"""Logs behind sockets: `from walsvc.service.server import serve`."""

from walsvc.service.server.server import Server, serve

__all__ = ["Server", "serve"]
