"""`tvops top` without its screen, and `tvops slo`: what is printed, and which options go together."""

from __future__ import annotations

import msgspec

from tests.top_documents import BEGIN, GATEWAY, STACK, Engine, metric
from tvops.slo import Port, lines, rows_of
from tvops.telemetry_client import Reading
from tvops.top.model import Model
from tvops.top.plain import csv_rows


def test_what_a_stack_says_does_not_steer_a_terminal() -> None:
    """Names with control characters are refused with their document; units and reasons are free text."""
    evil = "\x1b]0;title\x07\x9b31m\r\n"
    row = metric("tv_cpu", evil, 1.0, 1, 1, p50=1.0, detail=evil)
    document = msgspec.structs.replace(Engine().document(BEGIN), metrics=(row,))
    model = Model((STACK,))
    model.take(Reading(GATEWAY, document, "", 0, True))
    (line,) = csv_rows(model.moment(0))
    assert "?]0;title??31m??" in line
    ports = [Port(GATEWAY, "engine")]
    head, shown = lines(rows_of(ports, [Reading(GATEWAY, document, "", 0, True)], (), own=False))
    assert shown.endswith("(?]0;title??31m??)")
    assert all(text.isprintable() for text in (line, head, shown))
