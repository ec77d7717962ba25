"""The gateway's description, documentation and records agree with its code."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvops.engine.gateway import commands, entry, views
from tvops.engine.gateway.api import Api
from tvops.engine.gateway.limits import BURST_SECONDS, RateLimiter
from tvops.engine.gateway.openapi import build_openapi
from tvops.engine.gateway.pages import build_pages
from tvops.engine.gateway.problems import CODES, REASON_TITLES, RETRY_AFTER, ProblemError, reason_name
from tvops.engine.gateway.routes import ROUTES, Router
from tvops.engine.gateway.schemas import PlaceOrder
from tvops.engine.gateway.times import format_time
from tvops.engine.instruments import Step, load_instruments
from tvops.engine.records import COMMAND, EVENT, Reason

DOCS = (Path(__file__).parent.parent / "docs" / "gateway.md").read_text()
TABLE = load_instruments()


def test_openapi_has_every_route_and_nothing_else() -> None:
    document = build_openapi()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert len({route.handler for route in ROUTES}) == len(ROUTES)
    assert all(callable(getattr(Api, route.handler)) for route in ROUTES)
    references = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert references <= set(document["components"]["schemas"])


def test_every_route_is_found() -> None:
    router = Router()
    for route in ROUTES:
        path = re.sub(r"\{\w+\}", "x", route.path)
        assert router.match(route.method.encode(), path.encode())[0] is route
    assert router.match(b"GET", b"/")[0] is None
    for method, path in ((b"GET", b"/v1/"), (b"PATCH", b"/v1/orders"), (b"GET", b"/v1/orders/a/b")):
        with pytest.raises(ProblemError):
            router.match(method, path)


def test_every_code_is_documented() -> None:
    for code, (status, _) in CODES.items():
        assert f"| `{code}` | {status} |" in DOCS, code
    for reason in set(Reason) - {Reason.NONE}:
        assert f"| `{reason.name.lower()}` |" in DOCS, reason
        assert reason in REASON_TITLES
    documented = set(re.findall(r"^\| `(\w+)` \| \d", DOCS, re.MULTILINE))
    assert documented == set(CODES)
    assert set(RETRY_AFTER) <= set(CODES)
    assert {code for route in ROUTES for code in route.problems} <= set(CODES)
    assert reason_name(9999) == "reason_9999"


def test_every_route_is_documented() -> None:
    for route in ROUTES:
        assert route.path in DOCS, route.path


def test_packed_rows_have_the_layout_of_the_records() -> None:
    order = PlaceOrder("ETH-USDT", "sell", "limit", "1.5", "2000.01", "FOK", True, "allow", "me")
    row = commands.rows(commands.new_order(TABLE, 101, order))[0]
    shown = {
        name: row[name].item() for name in COMMAND.names or () if name not in ("reserved", "key_high", "key_low")
    }
    assert shown == {
        "seq": 0, "time": 0, "order_id": 0, "price": 200001, "quantity": 15000, "account": 101, "instrument": 1,
        "kind": 1, "side": 2, "order_type": 1, "time_in_force": 3, "flags": 1, "self_trade": 3, "param": 0,
        "client_id": b"me",
    }  # fmt: skip
    assert row["key_high"] != 0
    limit = commands.rows(commands.set_limit(7, 3, 5, 99))[0]
    assert (limit["account"], limit["instrument"], limit["param"], limit["quantity"]) == (7, 3, 5, 99)
    amended = commands.rows(commands.amend(7, 3, 11, 12, 13))[0]
    assert (amended["order_id"], amended["price"], amended["quantity"]) == (11, 12, 13)


def test_event_rows_have_the_layout_of_the_records() -> None:
    events = np.zeros(2, EVENT)
    names = [name for name in EVENT.names or () if name != "reserved"]
    for number, name in enumerate(names):
        events[name] = number + 1
    assert entry.event_rows(events) == [tuple(range(1, len(names) + 1))] * 2
    assert struct.calcsize(entry._EVENT.format) == EVENT.itemsize
    assert [views.E[name] for name in names] == list(range(len(names)))


@given(
    st.integers(-(10**12), 10**12), st.integers(1, 10**9), st.sampled_from(["0.01", "0.5", "1", "0.00001", "25"])
)
def test_ratios_are_rounded_to_the_nearest(numerator: int, denominator: int, step: str) -> None:
    text = views.format_ratio(Step("tick size", step), numerator, denominator)
    places = Step("tick size", step).places
    exact = Fraction(numerator, denominator) * Fraction(step)
    assert abs(Fraction(text) - exact) <= Fraction(1, 2 * 10 ** (places + views.RATIO_PLACES))
    assert len(text.partition(".")[2]) >= places


@given(st.integers(0, 2**62))
def test_times_are_rfc_3339(nanoseconds: int) -> None:
    text = format_time(nanoseconds)
    assert np.datetime64(text[:-1], "us").astype(np.int64) == nanoseconds // 1000


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 2)), max_size=60), st.floats(0.5, 50))
def test_no_account_gets_more_than_its_rate(requests: list[tuple[int, float]], rate: float) -> None:
    limiter = RateLimiter(rate)
    now = admitted = 0.0
    largest = 0
    for count, pause in requests:
        now += pause
        wait = limiter.admit(1, count, now)
        assert wait >= 0
        if not wait:
            admitted += count
            largest = max(largest, count)
    assert admitted <= max(1.0, rate * BURST_SECONDS) + rate * now + largest + 1e-6
    assert limiter.admit(2, 1, now) == 0


async def test_pages_are_guarded_and_stay_in_their_folder(tmp_path: Path) -> None:
    import httpx

    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "index.html").write_text("<title>page</title>")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    transport = httpx.ASGITransport(build_pages(8001, folder))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        page = await client.get("/")
        assert page.text == "<title>page</title>"
        policy = page.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "ws://localhost:8001" in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        cached = await client.get("/", headers={"if-none-match": page.headers["etag"]})
        assert cached.status_code == 304
        for path in (
            "/../secret",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "/link",
            "//etc/passwd",
            "/index.html/x",
            "/\x00",
        ):
            response = await client.get(path.replace("\x00", "%00"))
            assert response.status_code == 404, path
            assert "secret" not in response.text
        assert (await client.post("/")).status_code == 405
        strange = await client.get("/", headers={"host": "a;script-src *"})
        assert "script-src *" not in strange.headers["content-security-policy"]
    unbuilt = httpx.ASGITransport(build_pages(8001, tmp_path / "none"))
    async with httpx.AsyncClient(transport=unbuilt, base_url="http://localhost:8000") as client:
        assert (await client.get("/")).status_code == 404
        assert "order_not_open" in (await client.get("/docs/errors")).text
