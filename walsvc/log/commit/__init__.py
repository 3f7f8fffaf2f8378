"""Group commit, made of parts: each owns its state, and nobody else assigns it."""
