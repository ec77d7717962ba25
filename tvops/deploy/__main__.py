"""Writes the files: ``python -m tvops.deploy DIR [TARGETS]``; TARGETS is a file as the setting `targets` names."""

from __future__ import annotations

import sys
from pathlib import Path

from tvops.deploy.files import render_files
from tvops.engine.telemetry.targets import load_targets
from tvops.errors import TvopsError


def main(arguments: list[str]) -> int:
    """Write the files below the folder that the first argument names; give the exit code."""
    if len(arguments) not in (1, 2):
        sys.stderr.write("usage: python -m tvops.deploy DIR [TARGETS]\n")
        return 2
    try:
        targets = load_targets(Path(arguments[1]) if len(arguments) == 2 else None)
        for name, text in render_files(targets).items():
            path = Path(arguments[0]) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    except (TvopsError, OSError) as error:
        sys.stderr.write(f"tvops.deploy: {error}\n")
        return error.exit_code if isinstance(error, TvopsError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
