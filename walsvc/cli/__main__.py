"""`python -m walsvc.cli`, where the `walsvc` script is not installed."""

from walsvc.cli.main import main

main()
