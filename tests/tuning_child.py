"""Runs a scenario of tuning again and again, and kills it (SIGKILL) one step later each time.

    python -m tests.tuning_child SCENARIO FOLDER      leaves FOLDER/0, FOLDER/1, …; each a `Tree` after a crash

A step is each point before and after a write to a journal (also in its middle), an fsync, and the renaming that
replaces a file of the tree: what a crash may fall between. The last folder is that of the run that was not killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class Death:
    """Kills this process at its n-th step."""

    def __init__(self, step: int) -> None:
        self._left = step

    def step(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

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


def run_scenario(scenario: str, folder: Path, step: int) -> None:
    tree = make_tree(folder, scenario)
    with tree.state.lock(0, "test"):
        death = Death(step)
        os.fsync = death.around(lambda _: None)  # SIGKILL loses nothing that was written, synced or not
        os.pwrite = death.around(death.torn(os.pwrite))
        Path.replace = death.around(Path.replace)  # type: ignore[method-assign]
        SCENARIOS[scenario](tree)


def main(scenario: str, folder: Path) -> None:
    for step in range(1000):
        child = os.fork()
        if not child:
            try:
                run_scenario(scenario, folder / str(step), step)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
