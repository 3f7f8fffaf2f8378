"""Measuring one load on a log: `walsvc bench run`. What is held against it is measured by the repository's bench/."""
