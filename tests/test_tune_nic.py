"""Interfaces: features, channels and what a driver lacks, on a veth pair in a namespace and on this host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces import in_namespace
from tvops.tuning.host import Host
from tvops.tuning.kinds.nic import NicDriver
from tvops.tuning.model import Knob, Place, State

SETUP = """
from tvops.tuning.host import Host
from tvops.tuning.kinds.nic import NicDriver
from tvops.tuning.kinds.ethtool import get_features
from tvops.tuning.model import Knob, NotWrittenError, Place

subprocess.run("ip link add v0 numtxqueues 2 numrxqueues 2 type veth peer name v1", shell=True, check=True)
driver = NicDriver(Host())
v0 = Place("v0", "v0")

def knob(where, type="word"):
    return Knob(id="nic." + where.replace(" ", "."), kind="nic", where=where, type=type, why="w", source="s")

def show(where, place=v0):
    state = driver.read(knob(where), place)
    return [state.status, state.value, state.writable, state.reason]

def write(where, value, place=v0):
    try:
        driver.write(knob(where), place, value)
    except NotWrittenError as error:
        return str(error)
    return driver.read(knob(where), place).value

def on():
    return sorted(name for name, feature in get_features("v0").items() if feature.on)
"""


def knob(where: str, type: Any = "word") -> Knob:  # noqa: A002
    return Knob(id=f"nic.{where}", kind="nic", where=where, type=type, scope="nic", why="w", source="s")


def test_features_are_switched_and_put_back() -> None:
    shown = in_namespace(
        SETUP
        + """
result = {"places": [place.name for place in driver.places(knob("feature gro"))], "changes": [], "kept": []}
for feature in ("gro", "gso", "tso", "sg", "rx-gro-list"):
    all_before, before = on(), driver.read(knob("feature " + feature), v0)
    result["changes"].append([before.value, write("feature " + feature, "off" if before.value == "on" else "on")])
    driver.restore(knob("feature " + feature), v0, before)
    result["kept"].append(on() == all_before)
"""
    )
    assert shown["places"] == ["v0", "v1"]
    assert all(sorted(change) == ["off", "on"] for change in shown["changes"])
    assert shown["kept"] == [True] * 5


def test_a_feature_of_several_parts_comes_back_part_by_part() -> None:
    parts = in_namespace(
        SETUP
        + """
driver.write(knob("feature tx-tcp6-segmentation"), v0, "off")
before, state = on(), driver.read(knob("feature tso"), v0)
driver.write(knob("feature tso"), v0, "off")
without = on()
driver.write(knob("feature tso"), v0, "on")
everything = on()
driver.restore(knob("feature tso"), v0, state)
result = {"before": before, "without": without, "everything": everything, "after": on(), "value": state.value}
"""
    )
    assert parts["value"] == "on"
    assert "tx-tcp-segmentation" not in parts["without"]
    assert "tx-tcp6-segmentation" in parts["everything"]
    assert parts["after"] == parts["before"]


def test_what_the_driver_has_fixed_or_lacks_is_told() -> None:
    shown = in_namespace(
        SETUP
        + """
result = {
    "fixed": show("feature lro"), "unknown": show("feature nosuch"), "coalesce": show("coalesce rx-usecs"),
    "ring": show("ring rx"), "pause": show("pause rx"), "combined": show("channels combined"),
    "gone": show("feature gro", Place("v9", "v9")), "write coalesce": write("coalesce rx-usecs", "5"),
    "write gone": write("feature gro", "on", Place("v9", "v9")), "write fixed": write("feature lro", "on"),
}
"""
    )
    lacks = ["absent", "", True, "the driver does not support it"]
    assert shown["fixed"] == ["present", "off", False, "fixed by the driver"]
    assert shown["unknown"] == ["absent", "", True, "this kernel knows no feature nosuch"]
    assert (shown["coalesce"], shown["ring"], shown["pause"]) == (lacks, lacks, lacks)
    assert shown["combined"] == ["absent", "", True, "v0 has no combined of its own"]
    assert shown["gone"] == ["absent", "", True, "the interface is gone"]
    assert shown["write coalesce"] == "the driver does not support it"
    assert shown["write gone"] == "the interface is gone"
    assert shown["write fixed"] == "off"


def test_channels_are_set_within_what_the_interface_has() -> None:
    shown = in_namespace(
        SETUP
        + """
rx = knob("channels rx", "int")
before = driver.read(rx, v0)
result = {
    "before": before.value, "objections": [driver.objection(rx, v0, value) for value in ("2", "3")],
    "written": write("channels rx", "1"), "too many": write("channels rx", "3"),
    "huge": write("channels rx", "9" * 12), "kept": driver.read(rx, v0).value,
}
driver.restore(rx, v0, before)
result["after"] = driver.read(rx, v0).value
"""
    )
    assert shown["objections"] == ["", "v0 has at most 2"]
    assert [shown[at] for at in ("before", "written", "kept", "after")] == ["2", "1", "1", "2"]
    assert shown["too many"] == shown["huge"] == "the driver refuses the value"


def test_without_the_capability_nothing_can_be_written() -> None:
    shown = in_namespace(
        "import os\n"
        + SETUP
        + """
os.setuid(65534)
result = {"shown": show("feature gro"), "write": write("feature gro", "on"), "fixed": show("feature lro")}
"""
    )
    assert shown["shown"] == ["present", "off", False, "needs CAP_NET_ADMIN"]
    assert shown["write"] == "needs CAP_NET_ADMIN"
    assert shown["fixed"] == ["present", "off", False, "fixed by the driver"]


def test_ethtool_reads_the_same_and_takes_our_commands() -> None:
    if shutil.which("ethtool") is None:
        pytest.skip("ethtool is not installed")
    shown = in_namespace(
        SETUP
        + """
def legacy(name):
    text = subprocess.run(["ethtool", "-k", "v0"], capture_output=True, text=True, check=True).stdout
    return next(line.split()[1] for line in text.splitlines() if line.strip().startswith(name + ":"))

names = {
    "gro": "generic-receive-offload", "gso": "generic-segmentation-offload", "tso": "tcp-segmentation-offload",
    "lro": "large-receive-offload", "ntuple": "ntuple-filters", "sg": "scatter-gather", "rx": "rx-checksumming",
    "rxhash": "receive-hashing",
}
result = {"read": [[show("feature " + ours)[1], legacy(theirs)] for ours, theirs in names.items()], "shell": []}
for where, value in (("feature gro", "on"), ("feature tso", "off"), ("channels rx", "1")):
    subprocess.run(driver.shell(knob(where), v0, value), shell=True, check=True)
    result["shell"].append([value, show(where)[1]])
"""
    )
    assert len(shown["read"]) == 8
    assert all(ours == theirs for ours, theirs in shown["read"])
    assert all(value == read for value, read in shown["shell"])


def test_a_tree_has_no_interfaces_to_ask(tmp_path: Path) -> None:
    (tmp_path / "sys/class/net/eth0/device").mkdir(parents=True)
    driver = NicDriver(Host(tmp_path))
    assert driver.places(knob("ring rx", "int")) == [Place("eth0", "eth0")]
    state = driver.read(knob("ring rx", "int"), Place("eth0", "eth0"))
    assert state == State("absent", reason="a tree of files has no interfaces to ask")
    assert driver.objection(knob("ring rx", "int"), Place("eth0", "eth0"), "4096") == ""


@pytest.mark.parametrize(
    ("where", "value", "command"),
    [
        ("coalesce adaptive-rx", "off", "ethtool -C eth0 adaptive-rx off"),
        ("coalesce rx-usecs", "5", "ethtool -C eth0 rx-usecs 5"),
        ("ring rx", "512", "ethtool -G eth0 rx 512"),
        ("channels combined", "2", "ethtool -L eth0 combined 2"),
        ("pause rx", "off", "ethtool -A eth0 rx off"),
        ("feature gro", "on", "ethtool -K eth0 gro on"),
    ],
)
def test_the_shell_says_it_with_ethtool(where: str, value: str, command: str) -> None:
    assert NicDriver(Host()).shell(knob(where), Place("eth0", "eth0"), value) == command


def test_this_hosts_interfaces_show_what_ethtool_shows() -> None:
    if shutil.which("ethtool") is None:
        pytest.skip("ethtool is not installed")
    driver = NicDriver(Host())
    seen = 0
    for place in driver.places(knob("ring rx")):
        run = subprocess.run(["ethtool", "-g", place.name], capture_output=True, text=True)
        state = driver.read(knob("ring rx", "int"), place)
        if run.returncode:
            assert state.status == "absent"
            continue
        current = run.stdout.split("Current hardware settings:")[1]
        assert state.value == next(line.split()[1] for line in current.splitlines() if line.startswith("RX:"))
        most = int(next(line.split()[1] for line in run.stdout.splitlines() if line.startswith("RX:")))
        assert driver.objection(knob("ring rx", "int"), place, str(most)) == ""
        assert driver.objection(knob("ring rx", "int"), place, str(most + 1)) == f"{place.name} has at most {most}"
        seen += 1
    if not seen:
        pytest.skip("no interface here has rings")
