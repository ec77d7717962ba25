"""The operators' jobs as plain shell: run for real, on a tree of files and on a running stack."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.stack import Stack, free_port

pytestmark = pytest.mark.timeout(300)  # a restart has a minute to stop and more to start
JOBS = Path(__file__).parent.parent / "playbooks" / "shell"
Outcome = tuple[int, str, str]


class Tree:
    """A tree of files to tune, with a state directory and a `tvops` on PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.swappiness = self.root / "proc/sys/vm/swappiness"
        self.swappiness.parent.mkdir(parents=True)
        self.swappiness.write_text("60\n")
        program = folder / "tvops"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tvops "$@"\n')
        program.chmod(0o755)
        self.environment = {"TVOPS": str(program), "TVOPS_STATE_DIR": str(folder / "state")}

    def run(self, job: str, *arguments: str) -> Outcome:
        return run(job, *arguments, "--root", str(self.root), **self.environment)


def run(job: str, *arguments: str, **environment: str) -> Outcome:
    done = subprocess.run(
        [str(JOBS / job), *arguments], capture_output=True, text=True, timeout=200, env=os.environ | environment
    )
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


ONLY = ("--only", "vm.swappiness")


def test_a_host_is_tuned_verified_and_rolled_back(tree: Tree) -> None:
    assert tree.run("tune-host.sh", "prod", "--check", *ONLY)[:2] == (3, "pending")
    code, out, err = tree.run("verify-drift.sh", "prod", *ONLY)
    assert (code, out) == (3, "pending")
    assert "pending: vm.swappiness: 60 -> 10" in err
    assert tree.swappiness.read_text() == "60\n"
    assert tree.run("tune-host.sh", "prod", *ONLY)[:2] == (0, "changed")
    assert tree.swappiness.read_text() == "10\n"
    assert tree.run("tune-host.sh", "prod", *ONLY)[:2] == (0, "ok")
    assert tree.run("verify-drift.sh", "prod", *ONLY)[:2] == (0, "ok")
    # A rollback names what somebody else changed.
    tree.swappiness.write_text("5\n")
    code, out, err = tree.run("rollback.sh")
    assert (code, out) == (7, "failed")
    assert "conflict: vm.swappiness: holds 5" in err
    assert tree.run("rollback.sh", "--force")[:2] == (0, "changed")
    assert tree.swappiness.read_text() == "60\n"


@pytest.mark.parametrize("job", ["tune-host.sh", "verify-drift.sh"])
def test_wrong_use_is_told(tree: Tree, job: str) -> None:
    assert run(job)[0] == 2
    code, out, err = tree.run(job, "nosuch")
    assert (code, out) == (2, "failed")
    assert "there is no profile 'nosuch'" in err


def test_the_jobs_are_clean_for_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    jobs = sorted(str(path) for path in JOBS.glob("*.sh"))
    assert len(jobs) == 6
    done = subprocess.run(["shellcheck", "-x", *jobs], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""


# With a running stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    folder = tmp_path_factory.mktemp("jobs")
    running = Stack(folder / "data")
    subprocess.run([start_command(running, folder)], check=True, timeout=60)
    try:
        running.wait_ready(100)
        yield running
    finally:
        end_serve(running)
        running.client.close()


def end_serve(stack: Stack) -> None:
    """End the `serve` that a job started, with everything below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(serve_pid(stack))
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        for one in psutil.wait_procs(family, timeout=15)[1]:
            one.kill()


def serve_pid(stack: Stack) -> int:
    match = re.search(r"pid (\d+)", (stack.data_dir / "serve.lock").read_text())
    assert match
    return int(match[1])


def start_command(stack: Stack, folder: Path) -> Path:
    """Make the program that starts the stack as a service would: nobody's child."""
    command = folder / "start"
    command.write_text(
        f'#!/bin/sh\n"{sys.executable}" -m tvops serve --data-dir "{stack.data_dir}" --gateway-port '
        f"{stack.gateway_port} --market-port {stack.market_port} >'{folder}/log' 2>&1 </dev/null &\n"
    )
    command.chmod(0o755)
    return command


def test_a_stack_is_restarted_behind_its_health_checks(stack: Stack, tmp_path: Path) -> None:
    before = serve_pid(stack)
    instances = tmp_path / "instances"
    lock = stack.data_dir / "serve.lock"
    line = f"pidfile {lock} {stack.gateway} {stack.market} {start_command(stack, tmp_path)}"
    instances.write_text(f"# one\n\n{line}\n")
    code, out, err = run("rolling-restart.sh", str(instances), STOP_SECONDS="60", HEALTH_SECONDS="100")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"restarting {lock}", f"healthy    {lock}"]
    assert serve_pid(stack) != before


def test_nothing_is_restarted_while_an_instance_is_unhealthy(stack: Stack, tmp_path: Path) -> None:
    before = serve_pid(stack)
    dead = f"http://127.0.0.1:{free_port()}"
    instances = tmp_path / "instances"
    good = f"pidfile {stack.data_dir}/serve.lock {stack.gateway} {stack.market} /bin/false"
    instances.write_text(f"{good}\nunit nosuch.service {dead} {dead}")
    code, out, err = run("rolling-restart.sh", str(instances))
    assert (code, out) == (1, "")
    assert "nosuch.service is not healthy" in err
    assert serve_pid(stack) == before


@pytest.mark.parametrize("text", ["unit x http://127.0.0.1:1", "pidfile f http://a http://b", "nonsense"])
def test_a_wrong_line_is_named(tmp_path: Path, text: str) -> None:
    instances = tmp_path / "instances"
    instances.write_text(f"# first\n{text}\n")
    code, _, err = run("rolling-restart.sh", str(instances))
    assert code == 2
    assert f"{instances}, line 2:" in err


def gate(stack: Stack, load: str, **targets: str) -> Outcome:
    return run("load-test-gate.sh", GATEWAY=stack.gateway, MARKET=stack.market, WARM_UP="0", LOAD=load, **targets)


def test_a_load_passes_or_not_by_the_figures_of_the_stack(stack: Stack) -> None:
    order = {"symbol": "BTC-USDT", "side": "buy", "order_type": "limit", "quantity": "0.01", "price": "100"}
    load = f"curl -fsS -H 'Content-Type: application/json' -d '{json.dumps(order)}' {stack.gateway}/v1/orders"
    code, out, err = gate(stack, load, REPLY_P99_MS="60000", LATENCY_P99_MS="60000")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["readings"] >= 1
    assert figures["reply_p99_ms"] > 0
    assert (figures["latency_p99_ms"], figures["missed"]) == (None, 0)
    assert "market data: nobody listened" in err
    code, out, err = gate(stack, load, REPLY_P99_MS="0")
    assert code == 1
    assert "order replies: p99" in err


@pytest.mark.parametrize(
    ("load", "seconds", "told"),
    [
        ("sh -c 'exit 3'", "60", "the load ended with exit code 3"),
        ("sleep 60", "0", "has not ended after 0 s"),
    ],
)
def test_a_load_that_fails_does_not_pass(stack: Stack, load: str, seconds: str, told: str) -> None:
    code, _, err = gate(stack, load, LOAD_SECONDS=seconds)
    assert code == 1
    assert told in err


def test_an_instance_that_is_not_healthy_in_time_ends_the_job(stack: Stack, tmp_path: Path) -> None:
    """The last test of this stack: the restart of the first kills it, and nothing comes up in its place."""
    supervisor = psutil.Process(serve_pid(stack))
    family = [supervisor, *supervisor.children(recursive=True)]
    instances = tmp_path / "instances"
    addresses = f"{stack.gateway} {stack.market}"
    kill = tmp_path / "kill"
    # without their supervisor some may have ended before their turn comes
    kill.write_text(f"#!/bin/sh\nkill -KILL {' '.join(str(process.pid) for process in family)}\nexit 0\n")
    kill.chmod(0o755)
    instances.write_text(f"command {kill} {addresses}\ncommand {tmp_path}/never {addresses}\n")
    code, out, err = run("rolling-restart.sh", str(instances), HEALTH_SECONDS="1")
    assert (code, out) == (1, f"restarting {kill}")
    assert "is not healthy after 1 s; the instances behind it were left alone" in err
