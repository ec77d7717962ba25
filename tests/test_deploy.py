"""The files for Prometheus and Grafana: as the targets have it, and right by promtool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_exposition import telemetry
from tvops.deploy.__main__ import main
from tvops.deploy.files import render_files
from tvops.engine.telemetry import exposition
from tvops.engine.telemetry.targets import load_targets

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
METRIC = re.compile(r"\btv(?:ops)?_[a-z0-9_]+")


def promtool(*arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian package prometheus) is not here")
    return subprocess.run(["promtool", *arguments], input=text, capture_output=True, check=False, cwd=PROMETHEUS)


@pytest.mark.parametrize("name", render_files(load_targets()))
def test_committed_files_are_as_rendered(name: str) -> None:
    assert (ROOT / "deploy" / name).read_text() == render_files(load_targets())[name], (
        "run python -m tvops.deploy deploy"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "tvops.rules.yaml"),
        ("check", "config", "prometheus.yaml"),
        ("test", "rules", "tvops.rules.test.yaml"),
    ],
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_promtool_would_see_a_rule_that_does_not_fire(tmp_path: Path) -> None:
    text = (PROMETHEUS / "tvops.rules.yaml").read_text()
    (tmp_path / "tvops.rules.yaml").write_text(text.replace("tvops_metric_limit", "tvops_metric_nothing"))
    test = tmp_path / "test.yaml"
    test.write_text((PROMETHEUS / "tvops.rules.test.yaml").read_text())
    assert promtool("test", "rules", str(test)).returncode != 0


def expressions() -> Iterator[str]:
    for group in yaml.safe_load((PROMETHEUS / "tvops.rules.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in dashboard()["panels"]:
        yield from (query["expr"] for query in panel.get("targets", ()))


def dashboard() -> dict[str, Any]:
    return dict(json.loads((ROOT / "deploy" / "grafana" / "tvops.json").read_text()))


def test_every_name_in_rules_and_dashboard_is_a_metric() -> None:
    there = set(METRIC.findall(exposition.render(telemetry()).decode()))
    used = {name for text in expressions() for name in METRIC.findall(re.sub(r'"[^"]*"', "", text))}
    assert used - there - {"tvops_host_socket_queue_bytes"} == set()  # that one is not in every document
    assert len(used) > 20


def test_every_target_has_rules_and_a_panel() -> None:
    text = " ".join(expressions())
    titles = {panel["title"] for panel in dashboard()["panels"]}
    for target in load_targets():
        assert text.count(f'"{target.name}"') >= 3
        assert target.name in titles


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & own, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_more_of_some_is_better() -> None:
    rules = {rule["alert"]: rule["expr"] for group in yaml.safe_load(
        render_files(load_targets())["prometheus/tvops.rules.yaml"]
    )["groups"] for rule in group["rules"]}  # fmt: skip
    assert " < " in rules["TvUptimeBreach"]
    assert " > " in rules["TvCpuBreach"]


def test_an_operators_own_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "targets.yaml"
    own.write_text("tv_order_execution_latency: {limit: 31}\ntv_cpu: false\n")
    arguments = [str(tmp_path / "out"), str(own)]
    assert main(arguments) == 0
    text = (tmp_path / "out" / "prometheus" / "tvops.rules.yaml").read_text()
    assert "limit 31" in text
    assert "tv_cpu" not in text
    own.write_text("tv_cpu: {limit: many}\n")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"tvops.deploy: {own}:1: ")
    assert said.count("\n") == 1


def test_it_is_run_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "tvops.deploy"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "usage: python -m tvops.deploy DIR [TARGETS]\n")
