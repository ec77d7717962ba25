"""The transaction on the real sysctls of a network namespace of its own, in all four states of a knob."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.namespaces import in_namespace

_SETUP = """
from pathlib import Path
from tvops.tuning.apply import apply_plan
from tvops.tuning.catalogue import load_catalogue
from tvops.tuning.facts import read_facts
from tvops.tuning.history import drift
from tvops.tuning.host import Host
from tvops.tuning.journal import StateDirectory
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.model import Profile, Wish
from tvops.tuning.plan import exit_code, make_plan
from tvops.tuning.rollback import roll_back

def snapshot():
    shown = {}
    for path in Path("/proc/sys/net").rglob("*"):
        try:
            shown[str(path)] = path.read_text()
        except OSError:
            continue  # a directory, or one that is written only
    return shown

host, catalogue = Host(), load_catalogue()
driver = FileDriver(host, catalogue)
drivers = {"sysctl": driver, "file": driver}
state = StateDirectory(Path(STATE))

def plan(wishes):
    listed = tuple(Wish(knob=name, value=value) for name, value in wishes.items())
    profile = Profile(name="test", description="", settings={}, wishes=listed, facts=read_facts(host))
    return make_plan(profile, catalogue, drivers)

def tune(wishes):
    items = plan(wishes)
    with state.lock(0, "test"), state.new_run("apply", command="test", items=items) as run:
        apply_plan(items, catalogue, drivers, run)
    return items
"""

_FOUR_STATES = """
wishes = {
    "net.ipv4.tcp_rmem": "- - >=67108864",          # written
    "net.ipv4.tcp_slow_start_after_idle": "0",      # written
    "net.core.somaxconn": str(2**40),               # rejected: out of range
    "net.core.rmem_max": ">=64mb",                  # read-only or absent in a namespace
    "net.core.netdev_budget": "2000",               # absent in a namespace
}
before = snapshot()
items = tune(wishes)
changed = {path for path, text in snapshot().items() if text != before[path]}
again = [item.id for item in plan(wishes) if item.state == "pending"]
drifted = drift(state.runs(), catalogue, drivers, Path("/"))
with state.lock(0, "test"), state.open_run(state.ids()[-1]) as run:
    restored = roll_back(run, catalogue, drivers)
result = {
    "items": {item.id: [item.state, item.outcome] for item in items}, "code": int(exit_code(items, applied=True)),
    "reason": {item.id: item.reason for item in items}["net.core.somaxconn"],
    "changed": sorted(changed), "again": again, "drifted": len(drifted),
    "restored": {one.name: one.outcome for one in restored}, "same": snapshot() == before,
}
"""


@pytest.mark.parametrize("own_users", [False, True])
def test_every_state_of_a_sysctl_ends_as_documented(tmp_path: Path, own_users: bool) -> None:
    result = in_namespace(f"STATE = {str(tmp_path / 'state')!r}\n" + _SETUP + _FOUR_STATES, own_users)
    written = ["net.ipv4.tcp_rmem", "net.ipv4.tcp_slow_start_after_idle"]
    assert [result["items"][name] for name in written] == [["pending", "written"]] * 2
    assert result["items"]["net.core.somaxconn"] == ["pending", "failed"]
    assert "refuses the value" in result["reason"]
    assert result["items"]["net.core.rmem_max"] == ["unsupported", ""]
    assert result["items"]["net.core.netdev_budget"] == ["unsupported", ""]
    assert result["code"] == 4
    assert result["changed"] == sorted(f"/proc/sys/{name.replace('.', '/')}" for name in written)
    assert (result["again"], result["drifted"]) == (["net.core.somaxconn"], 0)
    assert result["restored"] == dict.fromkeys(written, "restored")
    assert result["same"]


_ELSEWHERE = """
Path("/proc/sys/net/core/somaxconn").write_text("8192")
with state.lock(0, "test"), state.open_run(state.ids()[-1]) as run:
    restored = roll_back(run, catalogue, drivers)
    result = [[one.name, one.outcome, one.reason] for one in restored]
    result.append(Path("/proc/sys/net/core/somaxconn").read_text())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="two namespaces of one user take root")
def test_the_values_of_one_namespace_are_not_put_back_in_another(tmp_path: Path) -> None:
    setup = f"STATE = {str(tmp_path / 'state')!r}\n" + _SETUP
    wishes = {"net.core.somaxconn": "8192", "net.ipv4.tcp_slow_start_after_idle": "0"}
    in_namespace(f"{setup}\nresult = [item.outcome for item in tune({wishes!r})]")
    idle, somaxconn, now = in_namespace(setup + _ELSEWHERE)
    assert idle == ["net.ipv4.tcp_slow_start_after_idle", "untouched", ""]
    assert somaxconn[:2] == ["net.core.somaxconn", "conflict"]
    assert "(it was written in another network namespace)" in somaxconn[2]
    assert now == "8192\n"
