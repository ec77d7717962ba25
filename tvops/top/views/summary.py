"""What the stack does and what it uses, a line each: the middle of the overview."""

from __future__ import annotations

from tvops.terminal import clean
from tvops.top.lines import DASH, Line, Span, data_size, number, spark
from tvops.top.model import Seen
from tvops.top.scene import Scene
from tvops.top.views.servers import memory_bounds, memory_share

HEALTH = {"ok": "ok", "degraded": "warn", "failed": "breach"}
LABEL = 11


def summary(scene: Scene) -> list[Line]:
    """Give services that are not well, feed, streams, orders, servers, cores and processes; cut to no width."""
    return [
        *_unwell(scene),
        _feed(scene),
        _streams(scene),
        _orders(scene),
        _servers(scene),
        _cores(scene),
        _processes(scene),
    ]


def _label(text: str, seen: Seen | None) -> list[Span]:
    return [Span(f" {text:<{LABEL}}", "head")] if seen else [Span(f" {text:<{LABEL}}", "head"), Span(DASH, "dim")]


def _row(label: str, seen: Seen | None, parts: list[tuple[str, str, str]]) -> Line:
    """Give a line of figures: what, the figure and its role; dimmed where they are old."""
    spans = _label(label, seen)
    for text, figure, role in parts if seen else ():
        faded = "dim" if seen and not seen.fresh else ""
        spans += [Span(f"{text} " if text else "", "dim"), Span(figure, faded or role), Span("  ")]
    return tuple(spans)


def _figure(seen: Seen, service: str, name: str) -> float | None:
    value = seen.figures(service).get(name)
    return float(value) if isinstance(value, int | float) else None


def _rate(seen: Seen, service: str, name: str) -> float | None:
    return seen.source.rate(seen.until, service, name)


def _worry(value: float | None) -> str:
    return "warn" if value else ""


def _unwell(scene: Scene) -> list[Line]:
    """Give the services that are not well, if there are any."""
    return [
        _row(
            "service",
            seen,
            [("", clean(name), ""), ("", clean(state).upper(), HEALTH.get(state, "")), (clean(detail), "", "")],
        )
        for seen in scene.seen
        for name, (state, detail) in (seen.document.health.items() if seen.document else ())
        if state != "ok"
    ]


def _feed(scene: Scene) -> Line:
    seen = scene.process("price", "stream")
    if seen is None or seen.document is None:
        return _row("feed", None, [])
    state, detail = seen.document.health.get("price", ("", ""))
    gaps = _figure(seen, "stream", "gaps")
    return _row(
        "feed",
        seen,
        [
            ("ticks/s", number(_figure(seen, "stream", "ticks_per_s")), ""),
            ("gaps", number(gaps), _worry(gaps)),
            ("state", clean(state) or DASH, HEALTH.get(state, "")),
            (clean(detail), "", ""),
        ],
    )


def _streams(scene: Scene) -> Line:
    seen = scene.process("stream")
    if seen is None:
        return _row("streams", None, [])
    dropped = _rate(seen, "stream", "clients_dropped")
    return _row(
        "streams",
        seen,
        [
            ("sessions", number(_figure(seen, "stream", "active_connections")), ""),
            ("sent/s", number(_rate(seen, "stream", "messages_sent")), ""),
            (
                "conflated/s",
                number(_rate(seen, "stream", "conflations")),
                _worry(_rate(seen, "stream", "conflations")),
            ),
            ("dropped", number(_figure(seen, "stream", "clients_dropped")), _worry(dropped)),
            ("unsent", data_size(_figure(seen, "stream", "unsent_bytes")), ""),
        ],
    )


def _orders(scene: Scene) -> Line:
    seen = scene.process("gateway")
    if seen is None:
        return _row("orders", None, [])
    timeouts = _rate(seen, "gateway", "timeouts_total")
    return _row(
        "orders",
        seen,
        [
            ("orders/s", number(_figure(seen, "gateway", "orders_per_s")), ""),
            ("commands/s", number(_figure(seen, "engine", "commands_per_second")), ""),
            ("waiting", number(_figure(seen, "gateway", "waiting")), ""),
            ("timeouts", number(_figure(seen, "gateway", "timeouts_total")), _worry(timeouts)),
            ("sessions", number(_figure(seen, "gateway", "sessions")), ""),
        ],
    )


def _servers(scene: Scene) -> Line:
    seen = next((s for s in scene.seen if s.document and s.document.servers), None)
    if seen is None or seen.document is None:
        return _row("redis", None, [])
    parts, bounds = [], memory_bounds(scene)
    for server in seen.document.servers:
        share = memory_share(server, bounds)
        used = data_size(server.used) + (f" {share.text}" if server.limit else "") if server.told else "up"
        parts.append((clean(server.role), used if server.up else "DOWN", share.role if server.up else "breach"))
    return _row("redis", seen, parts)


def _cores(scene: Scene) -> Line:
    seen = next((s for s in scene.seen if s.document and s.document.host), None)
    host = seen.document.host if seen and seen.document else None
    if seen is None or host is None:
        return _row("cores", None, [])
    many = len(host.cores) > 4
    shown = (
        spark(host.cores, len(host.cores), scene.ascii_only, 100.0)
        if many
        else " ".join(f"{busy:.0f}%" for busy in host.cores)
    )
    return _row(
        "cores",
        seen,
        [
            ("busy", shown, ""),
            ("steal", f"{host.steal_percent:.1f}%", "warn" if host.steal_percent >= 5 else ""),
            ("load", f"{host.load:.2f}", ""),
            ("memory", f"{data_size(host.memory - host.available)} of {data_size(host.memory)}", ""),
        ],
    )


def _processes(scene: Scene) -> Line:
    seen = next((s for s in scene.seen if s.document and s.document.processes), None)
    if seen is None or seen.document is None:
        return _row("processes", None, [])
    parts = []
    for process in sorted(seen.document.processes, key=lambda process: -process.cpu_percent):
        role = "warn" if process.leaking or process.over_budget else ""
        parts.append((clean(process.name), f"{process.cpu_percent:.0f}% {data_size(process.memory)}", role))
    return _row("processes", seen, parts)
