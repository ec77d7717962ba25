"""Where the data folders are that ship with tvops."""

from __future__ import annotations

from pathlib import Path


def resource(name: str) -> Path:
    """Give the path of a data folder that ships with tvops (`profiles`, `kernel-tuning`)."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
