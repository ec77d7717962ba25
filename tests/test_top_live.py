"""`tvops top` of a live stack: in a real terminal, of tmux, and the book that it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stack import Stack
from tvops import cli
from tvops.top import plain, sampler
from tvops.top.lines import number


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("live") / "data").start() as running:
        yield running


def test_the_book_of_a_gateway_is_printed(
    stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (plain, sampler):
        monkeypatch.setattr(module, "PATIENCE", 60.0)
    monkeypatch.setenv("COLUMNS", "100")
    words = ["top", "--once", "--view", "book", "--seconds", "0.1"]
    assert stack.order().status_code < 300
    assert cli.run([*words, "--gateway", stack.gateway, "--market", stack.market]) == 0
    shown = capsys.readouterr().out
    assert "price       quantity  orders" in shown
    assert stack.client.get("/v1/symbols").json()["symbols"][0]["symbol"] in shown
    assert cli.run([*words, "--market", stack.market]) == 0
    assert "no gateway among the ports" in capsys.readouterr().out


class Terminal:
    """A real terminal of its own tmux server."""

    def __init__(self, folder: Path, width: int = 80, height: int = 24) -> None:
        self.socket, self.size = str(folder / "tmux"), (str(width), str(height))
        self.folder = folder

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self.socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout

    def start(self, *arguments: str) -> None:
        # The shell stays, so that what is left on the ordinary screen can be looked at.
        command = f"'{sys.executable}' -m tvops top {' '.join(arguments)}; echo exit code $?; sleep 600"
        environment = ["-e", f"XDG_CONFIG_HOME={self.folder / 'config'}", "-e", "TERM=screen-256color"]
        width, height = self.size
        self.tmux("new-session", "-d", "-s", "top", "-x", width, "-y", height, *environment, command)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "top")

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", "-t", "top", *keys)

    def wait(self, pattern: str, between: Callable[[], object] = lambda: time.sleep(0.1)) -> str:
        """Give the screen as soon as it shows this; ``between`` is done before each further look."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            text = self.screen()
            if re.search(pattern, text, re.MULTILINE):
                return text
            between()
        raise AssertionError(f"no {pattern!r} on:\n{self.screen()}")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.tmux("kill-server")


@pytest.mark.timeout(600)  # as long as its waits may take in all
@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_a_live_stack_in_a_real_terminal(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Terminal(tmp_path) as terminal:
        recording = tmp_path / "live.top"
        terminal.start(f"{stack.gateway},{stack.market}", "--record", str(recording))
        terminal.wait(r"● engine +● market")
        orders = [stack.order().status_code for _ in range(30)]
        terminal.wait(  # the metric is of the last seconds only
            r"order_execution_latency +(● ok|▲ WARN|■ BREACH)",
            between=lambda: orders.append(stack.order().status_code),
        )
        assert all(code < 300 for code in orders)
        terminal.keys("2", "w", "w", "w")  # of all since it began to watch
        terminal.wait(rf"gateway_to_reply +engine .* {number(len(orders))}$")
        terminal.keys("6")
        terminal.wait(r"BTC-USDT.*spread")
        terminal.keys("8", "/")
        terminal.wait("regular expression")
        terminal.keys("connection lost|restarted", "Enter")  # a busy machine tells of many pauses
        terminal.wait(r"o sort.*filter connection lost")
        processes = stack.processes()
        processes["serve"].suspend()  # so that the engine is away for as long as top takes to see it
        processes["engine"].kill()
        terminal.wait(r"✕ engine lost")
        processes["serve"].resume()
        text = terminal.wait(r"● engine +● market")
        terminal.wait(r"engine has restarted")
        assert "connection lost" in text
        terminal.keys("q")
        text = terminal.wait(r"exit code 0")
        assert "engine has restarted" in text  # the last screen stays
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")
    assert cli.run(["top", "--replay", str(recording), "--once"]) == 0
    assert "order_execution_latency" in capsys.readouterr().out
