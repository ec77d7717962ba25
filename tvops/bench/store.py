"""The saved results, as a list."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tvops.bench.result import load_result, results_folder
from tvops.errors import UsageError
from tvops.terminal import clean


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """One file in the folder of results."""

    name: str
    path: str
    problem: str = ""  # why it is no result; then the rest says nothing
    scenario: str = ""
    started: int = 0  # ns since 1970
    seconds: float = 0.0
    verdict: str = ""
    host: str = ""  # digest of the fingerprint
    version: str = ""


def saved_results(folder: Path | None = None) -> list[Saved]:
    """Give what is saved, the newest first; files that are no results come last and say why."""
    folder = results_folder() if folder is None else folder
    found = [_saved(path) for path in sorted(folder.glob("*.json")) if path.is_file() and path.name[0] != "."]
    return sorted(found, key=lambda saved: (bool(saved.problem), -saved.started, saved.name))


def _saved(path: Path) -> Saved:
    try:
        result = load_result(str(path))
    except UsageError as error:
        return Saved(name=clean(path.stem), path=str(path), problem=clean(str(error)))
    return Saved(
        name=clean(path.stem), path=str(path), scenario=result.name, started=result.started,
        seconds=result.seconds, verdict=result.verdict,
        host=clean(result.fingerprint.digest) if result.fingerprint else "", version=result.version,
    )  # fmt: skip
