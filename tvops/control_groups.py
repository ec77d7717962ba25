"""Where the files of a process's control groups may be (cgroups(7))."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

_MOUNT = "/sys/fs/cgroup"


def group_folders(lines: Iterable[str], controller: str) -> list[str]:
    """Give the folders of a process's group of a controller and of all groups above it, nearest first.

    Not all of them exist: in a container without a cgroup namespace the path is the host's, of which only the
    mount's top can be seen; that is among the answer.

    Args:
        lines: of `/proc/PID/cgroup`.
        controller: memory, cpu, …
    """
    found: list[str] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        unified = [f"{_MOUNT}/unified", _MOUNT]
        tops = [f"{_MOUNT}/{controllers}", f"{_MOUNT}/{controller}"] if controllers else unified
        parts = [part for part in PurePosixPath(path).parts[1:] if part != ".."]
        for top in tops:
            found += ["/".join([top, *parts[:count]]) for count in range(len(parts), -1, -1)]
    return list(dict.fromkeys(found))
