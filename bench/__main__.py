"""`python -m bench VERB`: the log against its limits, beside its peers, and as it grows."""

from __future__ import annotations

import typer

from bench.verbs.compare import compare
from bench.verbs.fronts import fronts
from bench.verbs.growth import growth
from bench.verbs.jobs import jobs
from bench.verbs.limits import limits
from bench.verbs.plot import plot
from bench.verbs.sessions import sessions

app = typer.Typer(
    help="Measure walsvc; `walsvc bench run` measures one load.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for verb in (limits, compare, jobs, fronts, plot, growth, sessions):
    app.command()(verb)

if __name__ == "__main__":
    app(prog_name="python -m bench")
