"""What we read of this host is what sysctl(8), TuneD and Ansible read of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tvops.tuning.model import Item, Knob
from tvops.tuning.setup import Reach, opened

TUNED = """
import json, sys
from tuned.plugins.plugin_sysctl import _read_sysctl
from tuned.utils.commands import commands
shell = commands(logging=False)
answer = {}
for id, kind, path in json.load(sys.stdin):
    if kind == "sysctl":
        answer[id] = shell.remove_ws(_read_sysctl(id))
    elif kind == "choice":
        answer[id] = shell.get_active_option(shell.read_file(path))
    elif kind == "cpumask":
        answer[id] = shell.hex2cpulist(shell.read_file(path).strip())
    elif kind == "cpulist":
        answer[id] = shell.cpulist_unpack(shell.read_file(path).strip())
    else:
        answer[id] = shell.read_file(path).strip()
json.dump(answer, sys.stdout)
"""
ANSIBLE = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.posix.sysctl:
        name: "{{ item.key }}"
        value: "{{ item.value }}"
        sysctl_set: true
        reload: false
        sysctl_file: "FILE"
      loop: "{{ lookup('file', 'VALUES') | from_json | dict2items }}"
      check_mode: true
      register: compared
    - ansible.builtin.assert:
        that: compared.results | selectattr('changed') | map(attribute='item.key') | list == ['WRONG']
"""

Plan = tuple[list[Item], dict[str, Knob]]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    """Give what prod and ull say something of, as this host has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TVOPS_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        with opened(Reach()) as setup:
            items = {i.id: i for name in ("ull", "prod") for i in setup.plan(setup.resolve(name))}
            yield [i for i in items.values() if i.current is not None], setup.catalogue


def values(plan: Plan) -> dict[str, str]:
    return {item.knob: item.current or "" for item in plan[0] if item.kind == "sysctl"}


def test_sysctl(plan: Plan) -> None:
    if shutil.which("sysctl") is None:
        pytest.skip("sysctl is not installed")
    for key, value in values(plan).items():
        shown = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=60).stdout
        assert " ".join(shown.split()) == value, key
    assert len(values(plan)) > 10


def test_tuned(plan: Plan) -> None:
    probe = ["/usr/bin/python3", "-c", "import tuned.plugins.plugin_sysctl"]
    if not Path(probe[0]).exists() or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("TuneD is not installed")
    items, catalogue = plan
    asked = [
        (i.id, "sysctl" if i.kind == "sysctl" else catalogue[i.knob].type, i.place.address)
        for i in items
        if i.kind in ("sysctl", "file")
    ]
    ran = subprocess.run(
        ["/usr/bin/python3", "-c", TUNED], input=json.dumps(asked), capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    for item in items:
        if item.id in answer:
            theirs = answer[item.id]
            if isinstance(theirs, list):
                theirs = ",".join(str(cpu) for cpu in sorted(map(int, theirs)))
                assert theirs == ",".join(expanded(item.current or "")), item.id
            else:
                assert theirs == item.current, item.id
    assert len(answer) > 15


def expanded(cpus: str) -> list[str]:
    """Write a list of CPUs without ranges."""
    out: list[str] = []
    for part in filter(None, cpus.split(",")):
        low, _, high = part.partition("-")
        out += [str(cpu) for cpu in range(int(low), int(high or low) + 1)]
    return out


def test_ansible(plan: Plan, tmp_path: Path) -> None:
    """Its sysctl module, in check mode, wants to change nothing but a value that was made wrong."""
    program = "/usr/bin/ansible-playbook"
    if not Path(program).exists() or not list(
        Path("/usr/lib").glob("python3*/*/ansible_collections/ansible/posix")
    ):
        pytest.skip("Ansible with its posix collection is not installed")
    shapes = {re.sub(r"\d+", "0", value): key for key, value in values(plan).items()}
    wanted = {key: values(plan)[key] for key in shapes.values()}  # half a second each: one of each shape
    wrong = next(key for key, value in wanted.items() if value.isdigit())
    wanted[wrong] = str(int(wanted[wrong]) + 1)
    (tmp_path / "values").write_text(json.dumps(wanted))
    (tmp_path / "sysctl.conf").write_text("".join(f"{key}={value}\n" for key, value in wanted.items()))
    book = ANSIBLE.replace("FILE", str(tmp_path / "sysctl.conf")).replace("VALUES", str(tmp_path / "values"))
    (tmp_path / "book.yml").write_text(book.replace("WRONG", wrong))
    folders = {"ANSIBLE_HOME": "home", "ANSIBLE_LOCAL_TEMP": "local", "ANSIBLE_REMOTE_TEMP": "remote"}
    environment = os.environ | {name: str(tmp_path / folder) for name, folder in folders.items()}
    ran = subprocess.run(
        [program, "-i", "localhost,", str(tmp_path / "book.yml")],
        env=environment | {"LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "ignore", "ANSIBLE_PIPELINING": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "ok=2 " in ran.stdout
