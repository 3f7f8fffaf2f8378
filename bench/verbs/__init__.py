"""One file for each verb of `python -m bench`: its options, and what it prints."""
