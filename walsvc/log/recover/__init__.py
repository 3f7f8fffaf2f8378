"""Recovery: what an opening finds in the files, what it thinks of it, and what it mends."""
