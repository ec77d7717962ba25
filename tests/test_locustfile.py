"""The locustfile that ships, run by the real Locust against a real stack."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.stack import Stack
from tvops import cli


def test_a_few_users_place_orders_and_read_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("locust") is None:
        pytest.skip("locust is not installed")
    assert cli.run(["bench", "locustfile"]) == 0
    path = capsys.readouterr().out.strip()
    with Stack(tmp_path / "data", "--feed", "synthetic:50") as stack:
        stack.start()
        # A process of its own: gevent changes the standard library of the one that it runs in.
        ended = subprocess.run(
            [
                sys.executable, "-m", "locust", "-f", path, "--host", stack.gateway, "--headless", "--users", "4",
                "--spawn-rate", "4", "--run-time", "4s", "--stop-timeout", "5", "--json", "--only-summary",
            ],
            capture_output=True, text=True, timeout=90, cwd=tmp_path,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-2000:]
        rows = {row["name"]: row for row in json.loads(ended.stdout)}
        assert {"new", "cancel"} <= rows.keys()
        assert sum(row["num_failures"] for row in rows.values()) == 0
        orders = stack.orders(limit=1000)
        assert len(orders) == rows["new"]["num_requests"] > 8
        ids = [order["client_order_id"] for order in orders]
        assert Counter(ids).most_common(1)[0][1] == 1
        assert len({name.rpartition("-")[0] for name in ids}) == 4
        assert {order["status"] for order in orders} == {"cancelled"}
