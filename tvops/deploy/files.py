"""The files by name."""

from __future__ import annotations

import json
from collections.abc import Sequence

import yaml

from tvops.deploy.dashboard import dashboard
from tvops.deploy.rules import rule_tests, rules
from tvops.engine.telemetry.targets import Target

RULES = "prometheus/tvops.rules.yaml"
_HEAD = "# Rendered from the targets by `python -m tvops.deploy`; edit those instead.\n"
_SCRAPE = """\
# Prometheus for one stack on this machine: prometheus --config.file=prometheus.yaml
global:
  scrape_interval: 5s
  evaluation_interval: 5s
rule_files:
  - tvops.rules.yaml
scrape_configs:
  - job_name: tvops
    static_configs:
      - targets: ["127.0.0.1:8000", "127.0.0.1:8001"]  # gateway and market data
    # Where the stack wants keys, one of `tvops keys`, in a file that only Prometheus may read:
    # authorization:
    #   credentials_file: /etc/prometheus/tvops.key
"""


def render_files(targets: Sequence[Target]) -> dict[str, str]:
    """Render every file for these targets; name -> content."""
    return {
        "prometheus/prometheus.yaml": _SCRAPE,
        RULES: _HEAD + _yaml(rules(targets)),
        "prometheus/tvops.rules.test.yaml": _HEAD + _yaml(rule_tests(targets)),
        "grafana/tvops.json": json.dumps(dashboard(targets), indent=1, ensure_ascii=False) + "\n",
    }


def _yaml(data: object) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
