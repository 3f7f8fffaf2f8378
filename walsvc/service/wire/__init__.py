"""The protocol between client and server: frames, columns, errors, names. Bytes in, values out; no I/O."""
