"""The command line, one file per verb. Importing it costs typer and nothing else; see walsvc.cli.main."""
