"""The playbooks, run by the real ansible-playbook against this machine, on a tree of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_tune_command import make_root, profile, snapshot

PLAYBOOKS = Path(__file__).parent.parent / "playbooks"
BIN = Path(sys.executable).parent


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

    def play(self, playbook: str, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        given = self.folder / "variables.json"
        given.write_text(json.dumps(self.variables | variables))
        return subprocess.run(
            [BIN / "ansible-playbook", "-i", "localhost,", PLAYBOOKS / playbook, "-e", f"@{given}", *options],
            env=self.environment, capture_output=True, text=True, timeout=110,
        )  # fmt: skip


def recap(played: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Read the last line of a play: how many tasks were ok, changed, failed."""
    line = next(line for line in played.stdout.splitlines() if line.startswith("localhost ") and "ok=" in line)
    return {key: int(value) for key, value in (word.split("=") for word in line.split()[2:])}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(tmp_path, make_root(tmp_path, monkeypatch))


def test_tune_verify_drift_and_roll_back(fleet: Fleet, tmp_path: Path) -> None:
    mine, root, before = profile(tmp_path), fleet.root, snapshot(fleet.root)
    played = fleet.play("tune.yml", "--check", "--diff", tvops_profile=mine)
    assert played.returncode == 0, played.stdout
    assert recap(played)["changed"] == 1
    assert "-vm.swappiness = 60" in played.stdout
    assert "+vm.swappiness = 10" in played.stdout
    assert snapshot(root) == before

    played = fleet.play("tune.yml", "--diff", tvops_profile=mine, tvops_persist=True)
    assert played.returncode == 0, played.stdout
    assert recap(played)["changed"] == 2
    assert "-vm.swappiness = 60" in played.stdout
    assert (root / "etc/sysctl.d/90-tvops.conf").exists()
    played = fleet.play("tune.yml", tvops_profile=mine, tvops_persist=True)
    assert recap(played)["changed"] == 0, "a second time changes nothing"
    assert fleet.play("verify.yml", tvops_profile=mine).returncode == 0

    (root / "proc/sys/vm/swappiness").write_text("30\n")
    played = fleet.play("verify.yml", tvops_profile=mine)
    assert played.returncode == 2
    assert "has drifted: vm.swappiness" in played.stdout
    (root / "proc/sys/vm/swappiness").write_text("10\n")

    assert recap(fleet.play("rollback.yml", "--check"))["changed"] == 1
    assert recap(fleet.play("rollback.yml"))["changed"] == 1
    assert (root / "proc/sys/vm/swappiness").read_text() == "60\n"


def test_exit_codes_of_tvops_become_failures_with_their_reason(fleet: Fleet, tmp_path: Path) -> None:
    required = profile(tmp_path, {"net.core.wmem_max": {"value": 1, "required": True}})
    played = fleet.play("tune.yml", tvops_profile=required)
    assert played.returncode == 2
    assert "net.core.wmem_max: not on this host" in played.stdout
    best_effort = profile(tmp_path, {"net.core.wmem_max": 1, "boot.skew_tick": 1})
    played = fleet.play("tune.yml", tvops_profile=best_effort)
    assert played.returncode == 0, played.stdout
    assert "a reboot or a restart is pending: boot.skew_tick" in played.stdout


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
