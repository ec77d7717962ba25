"""A Grafana dashboard: the targets on top, then what explains them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tvops.engine.telemetry.targets import Target

Panel = dict[str, Any]

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDE, _THIRD, _ROW_HEIGHT, _HEIGHT = 24, 8, 1, 7
_HERE = 'job="tvops",instance=~"$instance"'
_UNITS = {"ms": "ms", "s": "s", "us": "µs", "MB": "mbytes", "%": "percent", "1/s": "cps"}

_EXPLAINING: Final[tuple[tuple[str, tuple[tuple[str, str, str, str], ...]], ...]] = (
    # row: panels: title, unit, expression, legend
    ("Latencies", (
        ("Stages, p50", "s", "histogram_quantile(0.5, sum by (stage, le) "
         "(rate(tvops_stage_seconds_bucket{HERE}[$__rate_interval])))", "{{stage}}"),
        ("Stages, p99", "s", "histogram_quantile(0.99, sum by (stage, le) "
         "(rate(tvops_stage_seconds_bucket{HERE}[$__rate_interval])))", "{{stage}}"),
        ("Stages, p99.9", "s", "histogram_quantile(0.999, sum by (stage, le) "
         "(rate(tvops_stage_seconds_bucket{HERE}[$__rate_interval])))", "{{stage}}"),
    )),
    ("Load", (
        ("Orders", "cps", "rate(tvops_gateway_orders_total{HERE}[$__rate_interval])", "orders a second"),
        ("Ticks", "cps", "tvops_stream_ticks_per_second{HERE}", "ticks a second"),
        ("Sessions", "none", "tvops_stream_sessions{HERE} or tvops_gateway_sessions{HERE}", "{{instance}}"),
    )),
    ("Processes", (
        ("CPU, of one core", "percentunit", "tvops_process_cpu_ratio{HERE}", "{{process}}"),
        ("Memory, shared pages counted once", "bytes", "tvops_process_proportional_bytes{HERE}", "{{process}}"),
        ("Memory growth", "binBps", "tvops_process_growth_bytes_per_second{HERE}", "{{process}}"),
    )),
    ("Host", (
        ("Busy cores", "percentunit", "tvops_core_busy_ratio{HERE}", "core {{core}}"),
        ("Stolen time", "percentunit", "tvops_host_steal_ratio{HERE}", "steal"),
        ("Waiting in sockets", "bytes", "tvops_host_socket_queue_bytes{HERE}", "bytes"),
    )),
    ("Servers", (
        ("Memory of maxmemory", "percentunit", "tvops_server_memory_bytes{HERE} / "
         "(tvops_server_memory_limit_bytes{HERE} > 0)", "{{role}}"),
        ("Commands", "cps", "tvops_server_commands_per_second{HERE}", "{{role}}"),
        ("Evictions", "cps", "rate(tvops_server_evicted_keys_total{HERE}[$__rate_interval])", "{{role}}"),
    )),
)  # fmt: skip


def dashboard(targets: Sequence[Target]) -> dict[str, Any]:
    """Give the dashboard for these targets."""
    panels = _Panels()
    panels.row("Targets")
    panels.add(_states(), _WIDE)
    for target in targets:
        panels.add(_target(target))
    for title, graphs in _EXPLAINING:
        panels.row(title)
        for graph in graphs:
            panels.add(_graph(*graph))
    return {
        "title": "tvops",
        "uid": "tvops",
        "description": "A tvops stack against its targets. Rendered by python -m tvops.deploy.",
        "tags": ["tvops"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
            {
                "name": "instance", "type": "query", "datasource": _SOURCE, "label": "Port", "multi": True,
                "includeAll": True, "allValue": ".*", "refresh": 2, "current": {"text": "All", "value": "$__all"},
                "query": {"query": 'label_values(tvops_info{job="tvops"}, instance)', "refId": "ports"},
            },
        ]},
        "panels": panels.placed,
    }  # fmt: skip


class _Panels:
    """Panels from left to right, row by row."""

    def __init__(self) -> None:
        self.placed: list[Panel] = []
        self._x = self._y = 0

    def row(self, title: str) -> None:
        """Begin a row with a title."""
        self._wrap()
        self._place({"type": "row", "title": title, "collapsed": False, "panels": []}, _WIDE, _ROW_HEIGHT)
        self._wrap(_ROW_HEIGHT)

    def add(self, panel: Panel, width: int = _THIRD) -> None:
        """Add a panel; one that does not fit beside the last begins a line."""
        if self._x + width > _WIDE:
            self._wrap()
        self._place({"datasource": _SOURCE, **panel}, width, _HEIGHT)

    def _place(self, panel: Panel, width: int, height: int) -> None:
        place = {"x": self._x, "y": self._y, "w": width, "h": height}
        self.placed.append({"id": len(self.placed) + 1, **panel, "gridPos": place})
        self._x += width

    def _wrap(self, height: int = _HEIGHT) -> None:
        if self._x:
            self._x, self._y = 0, self._y + height


def _states() -> Panel:
    """Show the state of every metric over time."""
    colours = {"0": ("no data", "purple"), "1": ("ok", "green"), "2": ("warn", "yellow"), "3": ("breach", "red")}
    shown = {
        value: {"text": text, "color": colour, "index": int(value)} for value, (text, colour) in colours.items()
    }
    terms = " + ".join(
        f'{value} * max by (metric) (tvops_metric_state{{{_HERE},tvops_metric_state="{text}"}})'
        for value, (text, _) in list(colours.items())[1:]
    )
    return {
        "type": "state-timeline",
        "title": "States",
        "targets": [_query(terms, "{{metric}}")],
        "fieldConfig": {"defaults": {"mappings": [{"type": "value", "options": shown}]}, "overrides": []},
        "options": {"showValue": "never", "mergeValues": True},
    }


def _target(target: Target) -> Panel:
    """Show one metric with its target and its limit."""
    selector = f'{_HERE},metric="{target.name}"'
    panel = _timeseries(target.name, _UNITS.get(target.unit, "none"), [
        _query(f"tvops_metric_value{{{selector}}}", "{{instance}}", "A"),
        _query(f"max(tvops_metric_target{{{selector}}})", "target", "B"),
        _query(f"max(tvops_metric_limit{{{selector}}})", "limit", "C"),
    ])  # fmt: skip
    lines = (("target", "yellow"), ("limit", "red"))
    panel["fieldConfig"]["overrides"] = [_line(name, colour) for name, colour in lines]
    return {
        **panel,
        "description": f"{target.text}; target {target.target:g}, limit {target.limit:g} {target.unit}",
    }


def _line(name: str, colour: str) -> dict[str, Any]:
    properties = {
        "color": {"mode": "fixed", "fixedColor": colour},
        "custom.lineStyle": {"fill": "dash", "dash": [8, 6]},
        "custom.fillOpacity": 0,
    }
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }


def _graph(title: str, unit: str, expression: str, legend: str) -> Panel:
    return _timeseries(title, unit, [_query(expression.replace("{HERE}", f"{{{_HERE}}}"), legend)])


def _timeseries(title: str, unit: str, queries: list[dict[str, Any]]) -> Panel:
    return {
        "type": "timeseries",
        "title": title,
        "targets": queries,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"lineWidth": 1}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def _query(expression: str, legend: str, reference: str = "A") -> dict[str, Any]:
    return {"datasource": _SOURCE, "expr": expression, "legendFormat": legend, "refId": reference}
