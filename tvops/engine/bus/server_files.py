"""The folder of one embedded server: its configuration, its pid file and the lock that says who has it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tvops.engine.private_files import write_private


class ServerFiles:
    """What lies in the folder of a server beside its data.

    The lock is inherited by the server process and held as long as it lives. So the kernel itself knows whether a
    server runs on these files, also after its supervisor was killed, and there is never a second one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "valkey.conf"

    def lock(self) -> int | None:
        """Take the lock and give its descriptor; None while a server has it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # somebody may have deleted it meanwhile
        lock = os.open(self.folder / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def written_config(self) -> str:
        """Give the configuration that was written last, "" if there is none."""
        try:
            return self.config.read_text()
        except (OSError, UnicodeDecodeError):
            return ""

    def write_config(self, text: str) -> None:
        """Write the configuration, which only its owner may read, whole or not at all; raise OSError."""
        write_private(self.config, os.fsencode(text))

    def pid(self) -> str:
        """Give the process id that the server wrote down."""
        try:
            return (self.folder / "server.pid").read_text().strip()
        except OSError:
            return "(unknown)"

    def is_folder(self, path: str) -> bool:
        """Whether a path, as a server tells it, is this folder."""
        return Path(path).resolve() == self.folder.resolve()
