"""Bytes to values and back. Pure: nothing here reads a file, waits or knows a clock."""
