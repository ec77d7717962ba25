"""The command line. Only the module of the command that is called is imported."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer

import tvops
from tvops.errors import TvopsError

COMMANDS = ("serve", "tune", "profiles", "doctor", "keys", "settings")
"""Each is a module of `tvops.commands` with an `app`; heavy imports stand inside its functions."""

CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
"""The base of typer's usage errors: typer carries its own copy of click and does not export it."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tvops {tvops.__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Run, tune and prove a TradingView-fronted trading stack."""


def build_app(arguments: list[str]) -> typer.Typer:
    """Give the app with the command that ``arguments`` call, or with all of them for the overview."""
    app = typer.Typer(
        name="tvops",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    called = [name for name in COMMANDS if name in arguments[:1]]
    for name in called or COMMANDS:
        module = importlib.import_module(f"tvops.commands.{name}")
        if len(module.app.registered_commands) == 1 and not module.app.registered_callback:
            app.command(name)(module.app.registered_commands[0].callback)
        else:
            app.add_typer(module.app, name=name)
    return app


def run(arguments: list[str]) -> int:
    """Run one command line and give its exit code; a failure that a user can cause is one line on stderr."""
    try:
        result: Any = build_app(arguments)(args=arguments, prog_name="tvops", standalone_mode=False)
    except TvopsError as error:
        return _tell(str(error), error.exit_code)
    except CLICK_ERROR as error:
        text: str = error.format_message()  # type: ignore[attr-defined]
        if not arguments or type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(text)
            return 2
        command = " ".join(["tvops", *(name for name in arguments[:1] if name in COMMANDS)])
        return _tell(f"{' '.join(text.split()).rstrip('.')}; see {command} --help", 2)
    except (typer.Abort, KeyboardInterrupt):
        return _tell("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    return result if isinstance(result, int) else 0


def _tell(message: str, exit_code: int) -> int:
    typer.echo(f"tvops: {message}", err=True)
    return exit_code


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))
