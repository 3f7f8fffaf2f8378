"""Measuring walsvc: a repository's tools, not part of the package. `python -m bench --help` in the repository's top directory."""
