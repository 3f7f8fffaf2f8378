"""Fronts: other protocols in front of the logs of a server, for programs in any language.

Each is an adapter over the interface of a log (walsvc.interface) and nothing else, with the tokens, rights and limits of the server.
"""
