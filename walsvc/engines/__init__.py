"""Engines for a log that is no directory: storage that other people keep well, below the same interface."""
