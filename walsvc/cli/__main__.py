"""`python -m walsvc.cli`, the same as `python -m walsvc`."""

from walsvc.__main__ import main

main()
