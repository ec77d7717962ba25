"""The playbooks, run by the real ansible-playbook against this machine, on a tree of files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_tune_command import KNOBS, make_root, profile, snapshot

PLAYBOOKS = Path(__file__).parent.parent / "playbooks"
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.timeout(180)


class Fleet:
    """A fleet of one: this machine."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.variables: dict[str, Any] = {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "tvops_become": False,
            "tvops_program": str(BIN / "tvops"), "tvops_root": str(root),
        }  # fmt: skip
        # Pipelining: a process less for each task.
        self.environment = os.environ | {
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default", "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
            "ANSIBLE_REMOTE_TEMP": str(folder / "remote"), "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_DEVEL_WARNING": "0",
            "ANSIBLE_PIPELINING": "1", "LC_ALL": "C.UTF-8",
        }  # fmt: skip

    def play(self, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Play some playbooks one after the other, by one start; the first that fails ends it."""
        given = self.folder / "variables.json"
        given.write_text(json.dumps(self.variables | variables))
        return subprocess.run(
            [BIN / "ansible-playbook", "-i", "localhost,", "-e", f"@{given}", *words],
            cwd=PLAYBOOKS, env=self.environment, capture_output=True, text=True, timeout=170,
        )  # fmt: skip


def recap(played: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Read the last line of all plays: how many tasks were ok, changed, failed."""
    *_, line = (line for line in played.stdout.splitlines() if line.startswith("localhost ") and "ok=" in line)
    return {key: int(value) for key, value in (word.split("=") for word in line.split()[2:])}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(tmp_path, make_root(tmp_path, monkeypatch))


def test_a_check_changes_nothing_and_what_has_drifted_fails(fleet: Fleet, tmp_path: Path) -> None:
    mine, before = profile(tmp_path), snapshot(fleet.root)
    played = fleet.play("tune.yml", "verify.yml", "--check", "--diff", tvops_profile=mine)
    assert recap(played)["changed"] == 1
    assert "-vm.swappiness = 60" in played.stdout
    assert "+vm.swappiness = 10" in played.stdout
    assert snapshot(fleet.root) == before
    assert played.returncode == 2
    assert re.search(r"has drifted: .*vm\.swappiness", played.stdout)


def test_tune_verify_and_roll_back(fleet: Fleet, tmp_path: Path) -> None:
    mine = profile(tmp_path, {**KNOBS, "boot.skew_tick": 1})
    played = fleet.play("tune.yml", "verify.yml", "rollback.yml", "--diff", tvops_profile=mine, tvops_persist=True)
    assert played.returncode == 0, played.stdout
    assert recap(played)["changed"] == 3, "tuned, made to last, rolled back"
    assert "-vm.swappiness = 60" in played.stdout
    assert "a reboot or a restart is pending: boot.skew_tick" in played.stdout
    assert (fleet.root / "etc/sysctl.d/90-tvops.conf").exists()
    assert (fleet.root / "proc/sys/vm/swappiness").read_text() == "60\n"


def module(root: Path, *, check: bool = False, **values: Any) -> dict[str, Any]:
    """Run the module as Ansible does once it has brought it to a host, and give what it says."""
    given = {"tvops": str(BIN / "tvops"), "root": str(root), **values, "_ansible_check_mode": check}
    done = subprocess.run(
        [sys.executable, PLAYBOOKS / "library" / "tvops_tune.py"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": given}), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


def test_the_module_makes_exit_codes_to_changes_and_failures_with_their_reason(
    fleet: Fleet, tmp_path: Path
) -> None:
    root, mine = fleet.root, profile(tmp_path)
    assert module(root, profile=mine)["changed"]
    assert not module(root, profile=mine)["changed"], "a second time changes nothing"
    assert "failed" not in module(root, profile=mine, state="verified")
    assert module(root, profile=mine, state="persisted")["changed"]
    assert not module(root, profile=mine, state="persisted")["changed"]
    assert module(root, state="rolled_back", check=True)["changed"]
    assert (root / "proc/sys/vm/swappiness").read_text() == "10\n"
    (root / "proc/sys/vm/swappiness").write_text("30\n")
    drifted = module(root, profile=mine, state="verified")
    assert (drifted["failed"], drifted["msg"]) == (True, "has drifted: vm.swappiness")
    required = profile(tmp_path, {"net.core.wmem_max": {"value": 1, "required": True}})
    refused = module(root, profile=required)
    assert refused["failed"]
    assert "net.core.wmem_max: not on this host" in refused["msg"]


class Health:
    """A port whose /health says what it is told to."""

    def __init__(self) -> None:
        self.status = "ok"
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"status": health.status, "services": {}}).encode()
                self.send_response(200 if health.status == "ok" else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def health() -> Iterator[Health]:
    port = Health()
    yield port
    port.close()


def test_a_rolling_restart_stands_behind_its_health_checks(fleet: Fleet, health: Health, tmp_path: Path) -> None:
    mark = tmp_path / "restarted"
    addresses = {"tvops_gateway": health.url, "tvops_market": health.url, "tvops_restart": f"touch {mark}"}
    played = fleet.play("restart.yml", **addresses)
    assert played.returncode == 0, played.stdout
    assert mark.exists()
    mark.unlink()
    health.status = "starting"
    played = fleet.play("restart.yml", **addresses)
    assert played.returncode != 0
    assert not mark.exists(), "an unhealthy fleet is not touched"


def test_every_playbook_parses_and_tells_how_it_is_called() -> None:
    for playbook in PLAYBOOKS.glob("*.yml"):
        text = playbook.read_text()
        assert text.startswith("#"), playbook
        assert f"playbooks/{playbook.name}" in text
        assert isinstance(yaml.safe_load(text), list)
