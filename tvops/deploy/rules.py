"""Alert rules for Prometheus, and a test of them for promtool.

A rule compares the value that a stack tells with the target and the limit that it tells, so that targets which an
operator has changed count without new rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tvops.engine.telemetry.targets import Target

Rule = dict[str, Any]

_STACK: Final[tuple[tuple[str, str, str, str, str], ...]] = (
    # name, expression, for, severity, text
    ("TvopsDown", 'up{job="tvops"} == 0', "15s", "critical", "port {{ $labels.instance }} does not answer"),
    (
        "TvopsServiceFailed", 'tvops_service_state{tvops_service_state="failed"} == 1', "0s", "critical",
        "service {{ $labels.service }} has failed",
    ),
    (
        "TvopsServiceDegraded", 'tvops_service_state{tvops_service_state="degraded"} == 1', "1m", "warning",
        "service {{ $labels.service }} is degraded",
    ),
    (
        "TvopsServerDown", "tvops_server_up == 0", "5s", "critical",
        "the {{ $labels.role }} server does not answer",
    ),
    (
        "TvopsRestarted", "changes(tvops_start_time_seconds[10m]) > 0", "0s", "warning",
        "{{ $labels.instance }} was restarted within ten minutes",
    ),
    (
        "TvopsMemoryGrows", "tvops_process_leaking == 1", "0s", "warning",
        "the memory of {{ $labels.process }} grows and grows",
    ),
    (
        "TvopsOverBudget", "tvops_process_proportional_bytes > tvops_process_budget_bytes", "1m", "warning",
        "{{ $labels.process }} takes {{ $value | humanize1024 }}B, more than its budget",
    ),
    (
        "TvopsMarketDataLost", "increase(tvops_stream_gaps_total[5m]) > 0", "0s", "warning",
        "market data was lost before it was read",
    ),
    (
        "TvopsSessionsDropped",
        "increase(tvops_stream_dropped_sessions_total[5m]) > 0 "
        "or increase(tvops_gateway_dropped_sessions_total[5m]) > 0",
        "0s", "warning", "sessions were closed for not reading",
    ),
    (
        "TvopsHostDrops",
        "increase(tvops_host_listen_drops_total[5m]) > 0 or increase(tvops_host_udp_drops_total[5m]) > 0",
        "0s", "warning", "the host dropped connections or datagrams: its queues were full",
    ),
    (
        "TvopsStolenTime", "tvops_host_steal_ratio > 0.05", "1m", "warning",
        "the hypervisor gives {{ $value | humanizePercentage }} of the cores to others",
    ),
    (
        "TvopsKnobsDrifted", 'tvops_knobs_places{state="drifted"} > 0', "0s", "warning",
        "{{ $value }} settings of the profile were in force and are not any more: somebody changed them",
    ),
)  # fmt: skip


def rules(targets: Sequence[Target]) -> dict[str, Any]:
    """Give the content of a rules file: a warning and a breach for each target, and what goes wrong in a stack."""
    of_targets = [rule for target in targets for rule in (_warning(target), _breach(target))]
    of_stack = [_rule(*row) for row in _STACK]
    return {"groups": [{"name": "tvops-targets", "rules": of_targets}, {"name": "tvops-stack", "rules": of_stack}]}


def rule_tests(targets: Sequence[Target]) -> dict[str, Any]:
    """Give a file for `promtool test rules`: the first target goes from ok over warn to breach, a port goes away.

    More of the first target has to be worse.
    """
    target = targets[0]
    labels = f'metric="{target.name}",unit="{target.unit}",instance="a",job="tvops"'
    step = (target.limit - target.target) / 2
    values = [target.target - step, target.target + step, target.limit + step]
    series = [f"{value:g}x11 " for value in values]
    shown = {"metric": target.name, "unit": target.unit, "instance": "a", "job": "tvops"}

    def alert(at: str, rule: Rule, found: bool) -> dict[str, Any]:
        text = rule["annotations"]["summary"].replace("{{ $labels.instance }}", "a")
        text = text.replace("{{ $value | humanize }}", f"{values[1 if rule is warning else 2]:g}")
        annotations = {**rule["annotations"], "summary": text}
        expected = [{"exp_labels": {**shown, **rule["labels"]}, "exp_annotations": annotations}]
        return {"eval_time": at, "alertname": rule["alert"], "exp_alerts": expected if found else []}

    warning, breach, down = _warning(target), _breach(target), _rule(*_STACK[0])
    gone = [{"exp_labels": {"instance": "a", "job": "tvops", **down["labels"]},
             "exp_annotations": {"summary": "port a does not answer"}}]  # fmt: skip
    return {
        "rule_files": ["tvops.rules.yaml"],
        "evaluation_interval": "5s",
        "tests": [
            {
                "interval": "5s",
                "input_series": [
                    {"series": f"tvops_metric_value{{{labels}}}", "values": "".join(series).strip()},
                    {"series": f"tvops_metric_target{{{labels}}}", "values": f"{target.target:g}x40"},
                    {"series": f"tvops_metric_limit{{{labels}}}", "values": f"{target.limit:g}x40"},
                    {"series": 'up{instance="a",job="tvops"}', "values": "1x11 0x30"},
                ],
                "alert_rule_test": [
                    alert("50s", warning, False), alert("50s", breach, False),
                    alert("110s", warning, True), alert("110s", breach, False),
                    alert("170s", warning, False), alert("170s", breach, True),
                    {"eval_time": "50s", "alertname": down["alert"], "exp_alerts": []},
                    {"eval_time": "110s", "alertname": down["alert"], "exp_alerts": gone},
                ],
            }
        ],
    }  # fmt: skip


def _breach(target: Target) -> Rule:
    return _of_target(target, "Breach", f"{_value(target)} {_worse(target)} {_limit(target)}", "critical")


def _warning(target: Target) -> Rule:
    over = f"{_value(target)} {_worse(target)} tvops_metric_target{_selector(target)}"
    return _of_target(
        target, "Warning", f"{over} unless {_value(target)} {_worse(target)} {_limit(target)}", "warning"
    )


def _of_target(target: Target, kind: str, expression: str, severity: str) -> Rule:
    name = "".join(part.capitalize() for part in target.name.split("_")) + kind
    text = (
        f"{target.text}: {{{{ $value | humanize }}}} {target.unit} on {{{{ $labels.instance }}}}, "
        f"target {target.target:g}, limit {target.limit:g}"
    )
    return _rule(name, expression, f"{target.for_seconds:g}s", severity, text)


def _rule(name: str, expression: str, hold: str, severity: str, text: str) -> Rule:
    return {
        "alert": name,
        "expr": expression,
        "for": hold,
        "labels": {"severity": severity},
        "annotations": {"summary": text},
    }


def _selector(target: Target) -> str:
    return f'{{metric="{target.name}"}}'


def _value(target: Target) -> str:
    return f"tvops_metric_value{_selector(target)}"


def _limit(target: Target) -> str:
    return f"tvops_metric_limit{_selector(target)}"


def _worse(target: Target) -> str:
    return "<" if target.limit < target.target else ">"
