"""Where the files of a profile go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tvops.errors import TvopsError, UsageError
from tvops.whole_files import check_place


@contextlib.contextmanager
def place_for(folder: Path, name: str) -> Iterator[Path]:
    """Give the path, without a suffix, of the files of one profile, which are for their owner only.

    Where that ends with an error, its files go, and with them the folders that were made for them.

    Raises:
        UsageError: nothing can be written there; before anything is done.
        TvopsError: it can be no longer.
    """
    stem, before, made = folder / name, os.umask(0o077), list[Path]()
    try:
        made = _prepare(folder)
        check_place(stem.with_suffix(".json"))
        yield stem
    except BaseException as error:
        _clear(stem, made)
        if isinstance(error, OSError):
            raise TvopsError(f"--output {folder}: {error.strerror or error}") from None
        raise
    finally:
        os.umask(before)


def _prepare(folder: Path) -> list[Path]:
    """Give the folders that had to be made, the innermost first."""
    try:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"--output {folder}: it is there, and no folder") from None
    except OSError as error:
        raise UsageError(f"--output {folder}: {error.strerror}") from None
    return made


def _clear(stem: Path, made: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for path in stem.parent.glob(f"{stem.name}.*"):
            path.unlink()
        for folder in made:
            folder.rmdir()
