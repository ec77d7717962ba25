"""Every dependency says why it is here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    explained = set(re.findall(r"[a-z][a-z0-9-]+", (ROOT / "docs" / "dependencies.md").read_text()))
    requirements = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    names = {re.split(r"[^A-Za-z0-9-]", requirement)[0] for requirement in requirements}
    assert names - explained == set()


def test_lock_file_of_the_page_names_no_registry() -> None:
    assert '"resolved"' not in (ROOT / "tvops" / "web" / "package-lock.json").read_text()
