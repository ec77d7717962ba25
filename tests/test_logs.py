"""Log lines as a process really writes them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

from tvops.engine.telemetry.logs import chosen_format

SPEAK = """
import logging, sys
from tvops.engine.telemetry.logs import set_up_logging
set_up_logging("info", "engine", sys.argv[1])
logger = logging.getLogger("tvops.somewhere")
logger.debug("not shown")
logger.info("%s orders, %r", 3, 'a "quoted"\\nline')
logger.warning("path %s", "b\\udcff")
logging.getLogger("uvicorn").info("chatty")
try:
    raise ValueError("no price")
except ValueError:
    logger.exception("an order failed")
"""
JSON_KEYS = {"time", "level", "process", "logger", "message"}


def spoken(form: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SPEAK, form], stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    assert done.stdout == b""
    return done.stderr.decode().splitlines()


@pytest.mark.parametrize("form", ["json", "auto"])  # stderr is a pipe here
def test_json_is_one_object_a_line(form: str) -> None:
    told: list[dict[str, Any]] = [json.loads(line) for line in spoken(form)]
    assert [line["level"] for line in told] == ["info", "warning", "error"]
    first, path, failure = told
    assert set(first) == JSON_KEYS
    assert (first["process"], first["logger"]) == ("engine", "tvops.somewhere")
    assert first["message"] == "3 orders, 'a \"quoted\"\\nline'"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert path["message"] == "path b\\udcff"
    assert set(failure) == JSON_KEYS | {"error", "reason", "traceback"}
    assert (failure["error"], failure["reason"]) == ("ValueError", "no price")
    assert 'raise ValueError("no price")' in failure["traceback"] or "ValueError: no price" in failure["traceback"]


def test_console_is_for_people() -> None:
    lines = spoken("console")
    line = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO engine tvops.somewhere: 3 orders, .*"
    assert re.fullmatch(line, lines[0])
    assert "Traceback (most recent call last):" in lines


def test_a_terminal_and_a_file_get_lines_for_people(tmp_path: Any) -> None:
    show = "from tvops.engine.telemetry.logs import chosen_format as c; import sys; sys.stdout.write(c('auto'))"

    def seen(stdin: Any, stderr: Any) -> str:
        done = subprocess.run(
            [sys.executable, "-c", show], stdin=stdin, stderr=stderr, stdout=subprocess.PIPE, check=True
        )
        return done.stdout.decode()

    controller, terminal = pty.openpty()
    try:
        assert seen(terminal, terminal) == "console"
        assert seen(terminal, subprocess.PIPE) == "console"  # `tvops serve 2>&1 | less`
    finally:
        os.close(controller)
        os.close(terminal)
    with (tmp_path / "log").open("wb") as file:
        assert seen(subprocess.DEVNULL, file) == "console"
    assert seen(subprocess.DEVNULL, subprocess.PIPE) == "json"
    assert chosen_format("console") == "console"
