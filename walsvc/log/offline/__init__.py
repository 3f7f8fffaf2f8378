"""Tools for a log that no program has open: inspecting, verifying, repairing, copying, migrating."""
