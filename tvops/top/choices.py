"""What the user chose to keep: theme, hidden columns, order of tables; in a file of the user's configuration."""

from __future__ import annotations

from pathlib import Path

import msgspec
import platformdirs

from tvops.whole_files import refusal, write_whole

MAX_BYTES = 1 << 16


class TableChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a table."""

    hidden: list[str] = []
    sort: str = ""
    descending: bool = False


class Choices(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of the file."""

    theme: str = ""
    tables: dict[str, TableChoice] = {}


def choices_file() -> Path:
    """Give where the choices are kept."""
    return platformdirs.user_config_path("tvops", False) / "top.yaml"


def read_choices(path: Path) -> tuple[Choices, str]:
    """Give the choices, and what is wrong with the file: a broken one counts as empty."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Choices(), ""
    except OSError as error:
        return Choices(), f"{path}: cannot be read ({error.strerror}); columns and theme are the defaults"
    try:
        if len(content) > MAX_BYTES:
            raise ValueError
        return msgspec.yaml.decode(content, type=Choices), ""
    except (ValueError, RecursionError):
        return Choices(), f"{path}: is not what top writes there and is left alone; remove it to start over"


def write_choices(path: Path, choices: Choices) -> None:
    """Keep the choices, all or nothing; raise UsageError where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(path, error) from None
    write_whole(path, msgspec.yaml.encode(choices))
