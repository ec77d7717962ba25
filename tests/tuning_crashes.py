"""What a disk holds after `kill -9` at each step of a run of tuning.

A step is each point before and after a write to a journal (also in its middle), an fsync, and the renaming that
replaces a file of the tree: what a crash may fall between. SIGKILL loses nothing that was written, synced or not,
so that what is read at a step is what a run that is killed there leaves. (Runs that are killed in earnest:
`test_tune_command.py`, `test_tune_evidence.py`.)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tuning_tree import CATALOGUE, Tree
from tvops.tuning.apply import apply_files, apply_plan
from tvops.tuning.flips import Flipper
from tvops.tuning.records import PlannedFile
from tvops.tuning.rollback import roll_back

WISHES: dict[str, object] = {"vm.swappiness": "10", "vm.nr_hugepages": "100", "vm.thp": "never"}
HUGEPAGES, THP = "/proc/sys/vm/nr_hugepages", "/sys/kernel/mm/transparent_hugepage/enabled"
FILES = [
    PlannedFile(path="/etc/sysctl.d/90-tvops.conf", content="vm.swappiness = 10\n"),
    PlannedFile(path="/etc/systemd/system/a.service.d/tvops.conf", content="[Service]\n", mode=0o600),
]


def make_tree(folder: Path, scenario: str) -> Tree:
    """Give the host of a scenario as it is before."""
    tree = Tree(folder)
    tree.write(FILES[0].path, "old\n")
    set_moods(tree, scenario)
    return tree


def set_moods(tree: Tree, scenario: str) -> None:
    """Make some places of a scenario's host reject or clamp what is written."""
    if scenario == "clamped":
        tree.driver.clamping = {HUGEPAGES: 7}
    if scenario == "required":
        tree.driver.rejecting = frozenset({THP})


def apply(tree: Tree, required: tuple[str, ...] = ()) -> None:
    items = tree.plan(WISHES, required)
    with tree.begin(items) as run:
        apply_plan(items, CATALOGUE, tree.drivers, run)


def apply_and_roll_back(tree: Tree) -> None:
    apply(tree)
    with tree.state.open_run(tree.state.ids()[-1]) as run:
        roll_back(run, CATALOGUE, tree.drivers)


def persist(tree: Tree) -> None:
    with tree.state.new_run("persist", command="", root=tree.root, files=FILES) as run:
        apply_files(FILES, run)


def measure(tree: Tree) -> None:
    items = tree.plan(WISHES)
    with (
        tree.state.new_run("measure", command="", root=tree.root, items=items) as run,
        Flipper(run, CATALOGUE, tree.drivers) as flipper,
    ):
        for item in (items[0], items[1], items[0]):
            flipper.on(item)
            flipper.off(item)
        flipper.keep(items[2])


SCENARIOS: dict[str, Callable[[Tree], None]] = {
    "apply": apply,
    "clamped": apply,
    "required": lambda tree: apply(tree, ("vm.thp",)),
    "rollback": apply_and_roll_back,
    "persist": persist,
    "measure": measure,
}


Disk = dict[str, tuple[bytes | None, int]]
"""Every path below a folder with content (None: a directory) and mode."""


def read_disk(folder: Path) -> Disk:
    disk: Disk = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            disk[str(path.relative_to(folder))] = (
                None if name in folders else path.read_bytes(), path.stat().st_mode,
            )  # fmt: skip
    return disk


def write_disk(folder: Path, disk: Disk) -> None:
    """Have in a folder what is on the disk, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, (content, mode) in disk.items():
        path = folder / name
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
        path.chmod(mode)


class Steps:
    """Reads the disk at each step. Those between which nothing is written leave the same."""

    def __init__(self, folder: Path) -> None:
        self.disks: list[Disk] = []
        self._folder = folder

    def step(self) -> None:
        now = read_disk(self._folder)
        if not self.disks or self.disks[-1] != now:
            self.disks.append(now)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.step()
            result = function(*arguments)
            self.step()
            return result

        return call

    def torn(self, pwrite: Callable[[int, bytes, int], int]) -> Callable[[int, bytes, int], int]:
        def call(fd: int, data: bytes, offset: int) -> int:
            pwrite(fd, data[: len(data) // 2], offset)
            self.step()
            return pwrite(fd, data, offset)

        return call


def crashes(scenario: str, folder: Path) -> list[Disk]:
    """Run a scenario in a new folder; give what each crash leaves there, the last one that of the whole run."""
    tree, steps = make_tree(folder, scenario), Steps(folder)
    with tree.state.lock(0, "test"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", steps.around(lambda _: None))
        patch.setattr(os, "pwrite", steps.around(steps.torn(os.pwrite)))
        patch.setattr(Path, "replace", steps.around(Path.replace))
        SCENARIOS[scenario](tree)
    steps.step()
    return steps.disks
