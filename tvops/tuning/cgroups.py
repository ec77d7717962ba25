"""The control groups that limit this process: where their files are, below a host's root."""

from __future__ import annotations

from tvops.control_groups import group_folders
from tvops.tuning.host import Host


def cgroup_folders(host: Host, controller: str) -> list[str]:
    """Give the folders of this process's group of a controller and of all groups above it, nearest first.

    In a container without a cgroup namespace the path is the host's, of which only the mount's top can be seen:
    the folders that are missing are left out, and the top is among the answer.
    """
    folders = group_folders(read_lines(host, "/proc/self/cgroup"), controller)
    return [folder for folder in folders if host.exists(folder)]


def read_lines(host: Host, path: str) -> list[str]:
    """Give the lines of a file; nothing where it cannot be read."""
    try:
        return host.read_text(path).splitlines()
    except OSError:
        return []


def read_word(host: Host, path: str) -> str:
    """Give the content of a one-line file, stripped; empty where it cannot be read."""
    return "\n".join(read_lines(host, path)).strip()
