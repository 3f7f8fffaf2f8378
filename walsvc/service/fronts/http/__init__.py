"""The HTTP front: logs for clients that have no more than curl, at /v1 of the HTTP side. docs/HTTP.md describes it for its users.

routes     which path is answered by which function, with which right
request    parts of a request: token, namespace, parameters, body
problems   errors as problem+json (RFC 9457)
appending, reading, leasing, deleting   what the paths do
openapi    the same as a document
"""
