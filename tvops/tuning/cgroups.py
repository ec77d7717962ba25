"""The control groups that limit this process: where their files are, below a host's root."""

from __future__ import annotations

from pathlib import PurePosixPath

from tvops.tuning.host import Host

_MOUNT = "/sys/fs/cgroup"


def cgroup_folders(host: Host, controller: str) -> list[str]:
    """Give the folders of this process's group of a controller and of all groups above it, nearest first.

    In a container without a cgroup namespace the path is the host's, of which only the mount's top can be seen:
    the folders that are missing are left out, and the top is among the answer.
    """
    found: list[str] = []
    for line in read_lines(host, "/proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        tops = [f"{_MOUNT}/{controllers}", f"{_MOUNT}/{controller}"] if controllers else _unified_tops()
        parts = [part for part in PurePosixPath(path).parts[1:] if part != ".."]
        for top in tops:
            below = ["/".join([top, *parts[:count]]) for count in range(len(parts), -1, -1)]
            found += [folder for folder in below if folder not in found and host.exists(folder)]
    return found


def _unified_tops() -> list[str]:
    return [f"{_MOUNT}/unified", _MOUNT]


def read_lines(host: Host, path: str) -> list[str]:
    """Give the lines of a file; nothing where it cannot be read."""
    try:
        return host.read_text(path).splitlines()
    except OSError:
        return []


def read_word(host: Host, path: str) -> str:
    """Give the content of a one-line file, stripped; empty where it cannot be read."""
    return "\n".join(read_lines(host, path)).strip()
