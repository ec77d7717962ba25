"""The command line. Only the module of the command that is called is imported."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import sys
from typing import Any, TextIO

import typer

import tvops
from tvops.errors import TvopsError
from tvops.terminal import say
from tvops.tuning.host import is_text

COMMANDS = ("serve", "tune", "profiles", "doctor", "top", "slo", "bench", "profile", "keys", "settings")
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


def build_command(arguments: list[str]) -> Any:
    """Give the click command of `build_app`, whose numbers have to be finite."""
    from typer.main import get_command

    command = get_command(build_app(arguments))
    _want_finite_numbers(command)
    return command


def _want_finite_numbers(command: Any) -> None:
    for each in getattr(command, "commands", {}).values():
        _want_finite_numbers(each)
    for parameter in command.params:
        if parameter.type.name.startswith("float") and parameter.callback is None:
            parameter.callback = _finite


def _finite(context: object, parameter: Any, value: float | None) -> float | None:
    """Refuse what ranges let through: nan is neither below nor above anything."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number to work with", context, parameter)  # type: ignore[arg-type]
    return value


def run(arguments: list[str]) -> int:
    """Run one command line and give its exit code; a failure that a user can cause is one line on stderr.

    So is Ctrl-C, unless the command made an end of its own of it and gives 130.
    """
    if strange := [text for text in arguments if not is_text(text)]:
        return _tell(f"{strange[0]!r}: is not UTF-8 text", 2)
    try:
        return _invoke(arguments)
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
    except OSError as error:
        return _tell(f"{error.filename or 'the output'}: {error.strerror or error}", 1)


def _invoke(arguments: list[str]) -> int:
    """Do what click's own `main` does, which makes the same 130 of Ctrl-C as of a command that gives it."""
    command = build_command(arguments)
    try:
        with command.make_context("tvops", list(arguments)) as context:
            result = command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    return result if isinstance(result, int) else 0


def _tell(message: str, exit_code: int) -> int:
    with contextlib.suppress(OSError):  # there is nobody to tell it to
        say(f"tvops: {message}", err=True)
    return exit_code


def main() -> int:
    """Run the command line of this process and give its exit code; nothing is left to be printed then."""
    _open_streams()
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or 141
    except OSError as error:
        code = code or _tell(f"the output: {error.strerror}", 1)
    for stream in (sys.stdout, sys.stderr):
        _drain(stream)
    return code


def _open_streams() -> None:
    """Have all three streams, and let no letter that a terminal lacks end a run that is under way."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # `>&-`; the lowest number that is free is that of the stream
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drain(stream: TextIO) -> None:
    """Let go of what a stream cannot get rid of, which Python would complain of at its end."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), stream.fileno())
    except ValueError:
        return  # it is closed
