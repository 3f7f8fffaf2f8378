"""What works on a log that nobody has open: inspecting, verifying, repairing, copying, migrating."""
