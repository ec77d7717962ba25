"""`tvops bench`: put load on a stack and measure what comes of it."""

from __future__ import annotations

import typer

from tvops.bench.signals import first_interrupt_only
from tvops.commands.bench import comparing, experimenting, loading, sizing

SUBCOMMANDS = (loading, comparing, experimenting, sizing)
"""The modules of this package whose `app` holds subcommands."""

app = typer.Typer(no_args_is_help=True)
for module in SUBCOMMANDS:
    for command in module.app.registered_commands:
        app.registered_commands.append(command)


@app.callback()
def bench(context: typer.Context) -> None:
    """Put load on a stack at a stated rate, and measure what comes of it.

    Exit codes: 0 passed; 1 failed to run; 2 usage; 3 targets missed; 4 void, because the generator was late;
    130 interrupted.
    """
    context.with_resource(first_interrupt_only())
