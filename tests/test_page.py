"""The page in a real browser, on a real stack: everything moves without a reload."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.stack import Stack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

expect.set_options(timeout=100_000)

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("page") / "data") as running:
        yield running.start()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Visit:
    """An open page, and what went wrong on it."""

    def __init__(self, browser: Browser, url: str, width: int = 1440) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark")
        self.context.set_default_timeout(100_000)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda entry: self.errors.append(entry.text) if entry.type == "error" else None)
        self.page.on("request", lambda request: self.hosts.add(urlparse(request.url).hostname or ""))
        self.page.goto(url)


@pytest.fixture(scope="module")
def opened(browser: Browser, stack: Stack) -> Iterator[Visit]:
    visit = Visit(browser, stack.gateway)
    expect(visit.page.locator("#market-link")).to_have_attribute("data-link", "open")
    expect(visit.page.locator("#orders-link")).to_have_attribute("data-link", "open")
    expect(visit.page.locator("#book-panel")).to_have_attribute("data-state", "live")
    yield visit
    visit.context.close()


@pytest.fixture
def visit(opened: Visit, stack: Stack) -> Iterator[Visit]:
    """Give the one page that all tests look at, with its table of open orders, empty."""
    opened.page.get_by_role("tab", name="Open orders").click()
    expect(opened.page.locator("#tab-open tbody tr")).to_have_count(0)
    yield opened
    stack.client.delete("/v1/orders")


def changes(read: Callable[[], object], times: int = 3, seconds: float = 100) -> bool:
    """Tell whether what ``read`` gives becomes ``times`` different things."""
    seen: list[object] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = read()
        if not seen or value != seen[-1]:
            seen.append(value)
        if len(seen) > times:
            return True
        time.sleep(0.1)
    return False


def levels(page: Page, side: str) -> list[str]:
    texts: list[str] = page.locator(f"#book-{side} .price").all_inner_texts()
    return [text.replace(",", "") for text in texts if text]


def write_ticket(page: Page, side: str, quantity: str, price: str | None) -> None:
    page.locator(f".side-choice .{side}").click()
    page.locator("#ticket label", has_text="Limit" if price else "Market").click()
    page.fill("#quantity", quantity)
    if price:
        page.fill("#price", price)
    page.click("#submit")


def test_candles_book_and_trades_move(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#chart-notice")).to_be_hidden()
    assert changes(lambda: page.locator("#chart").screenshot())
    assert changes(lambda: page.locator("#book").inner_text())
    assert changes(lambda: page.locator("#tape").inner_text())
    assert changes(lambda: page.locator("#legend-close").inner_text(), times=1)
    expect(page.locator("#simulated")).to_be_visible()


def test_the_book_never_crosses(visit: Visit) -> None:
    script = """() => ["buy", "sell"].map(side => [...document.querySelectorAll(`#book-${side} .price`)]
        .map(cell => cell.textContent.replaceAll(",", "")).filter(text => text !== "").map(Number))"""
    for _ in range(20):
        bids, asks = visit.page.evaluate(script)
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
        assert max(bids, default=0) < min(asks, default=float("inf"))
        visit.page.wait_for_timeout(50)


def test_the_book_is_the_engines(visit: Visit, stack: Stack) -> None:
    """Both move on between the two looks: most of the best levels have to be the same, again and again."""

    def same() -> bool:
        engine = stack.client.get("/v1/book/BTC-USDT", params={"depth": 12}).json()
        sides = (("buy", engine["bids"]), ("sell", engine["asks"]))
        return all(len({row[0] for row in rows} & set(levels(visit.page, side))) >= 6 for side, rows in sides)

    for _ in range(5):
        deadline = time.monotonic() + 60
        while not same():
            assert time.monotonic() < deadline, "the page shows another book than the engine has"
        visit.page.wait_for_timeout(200)


def test_an_order_from_the_ticket_opens_and_is_cancelled(visit: Visit, stack: Stack) -> None:
    page = visit.page
    page.evaluate("() => { window.notReloaded = true; }")
    write_ticket(page, "buy", "0.01001", "58999.01")
    row = page.locator("#tab-open tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("58,999.01")
    (order,) = stack.orders(status="live")
    assert (order["price"], order["quantity"], order["side"]) == ("58999.01", "0.01001", "buy")
    row.get_by_role("button").click()
    expect(row).to_have_count(0)
    assert stack.client.get(f"/v1/orders/{order['order_id']}").json()["status"] == "cancelled"
    page.get_by_role("tab", name="Order history").click()
    expect(page.locator("#tab-history tbody tr").first).to_contain_text("Cancelled")
    assert page.evaluate("() => window.notReloaded")


def test_orders_of_other_clients_appear_and_all_are_cancelled_at_once(visit: Visit, stack: Stack) -> None:
    for price in ("58000", "57000", "56000"):
        assert stack.order(price=price).status_code == 201
    rows = visit.page.locator("#tab-open tbody tr")
    expect(rows).to_have_count(3)
    visit.page.click("#cancel-all")
    expect(rows).to_have_count(0)
    assert stack.orders(status="live") == []


def test_a_price_of_the_book_goes_into_the_ticket_and_the_order_is_marked(visit: Visit, stack: Stack) -> None:
    """So near to the market it may be filled before it is seen: then once more."""
    page, rows = visit.page, visit.page.locator("#tab-open tbody tr")
    deadline = time.monotonic() + 100
    shown = False
    while not shown:
        known = {order["order_id"] for order in stack.orders()}
        page.locator("#book-buy .level").nth(5).click()
        price = page.locator("#price").input_value()
        assert re.fullmatch(r"\d+\.\d\d", price)
        page.fill("#quantity", "0.001")
        page.keyboard.press("Enter")
        filled = False
        while not (shown or filled):
            assert time.monotonic() < deadline, "no order is shown"
            fresh = [order for order in stack.orders() if order["order_id"] not in known]
            assert all(order["price"] == price for order in fresh)
            shown, filled = rows.count() == 1, any(order["status"] == "filled" for order in fresh)


def test_a_market_order_becomes_an_execution_and_a_live_position(visit: Visit) -> None:
    page = visit.page
    write_ticket(page, "buy", "0.02", None)
    page.get_by_role("tab", name="Executions").click()
    expect(page.locator("#tab-executions tbody tr").first).to_contain_text("Taker")
    page.get_by_role("tab", name="Positions").click()
    row = page.locator("#tab-positions tbody tr")
    expect(row).to_contain_text("BTC-USDT")
    assert changes(lambda: row.inner_text(), times=1)
    write_ticket(page, "sell", "0.02", None)


def test_a_refused_order_says_why(visit: Visit) -> None:
    write_ticket(visit.page, "buy", "99", "100000")
    expect(visit.page.locator(".toast.bad")).to_contain_text("refused")
    expect(visit.page.locator("#tab-open tbody tr")).to_have_count(0)


def test_a_quantity_between_two_lots_is_not_sent(visit: Visit, stack: Stack) -> None:
    before = stack.orders()
    write_ticket(visit.page, "buy", "0.000001", "58000")
    message = visit.page.locator("#quantity").evaluate("input => input.validationMessage")
    assert message == "quantity must be a multiple of 0.00001"
    assert stack.orders() == before


def test_the_interval_and_the_symbol_can_be_changed(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="1m").click()
    expect(page.locator("#chart-notice")).to_be_hidden()
    page.select_option("#symbol", "ETH-USDT")
    expect(page.locator("#book-panel")).to_have_attribute("data-state", "live")
    expect(page.locator("#submit")).to_have_text("Buy ETH")
    assert changes(lambda: page.locator("#book").inner_text(), times=1)


def test_the_page_asked_nobody_else_and_reported_no_error(visit: Visit) -> None:
    """In all the tests before this one."""
    assert visit.hosts == {"127.0.0.1"}
    assert visit.errors == []


def test_the_page_survives_the_death_of_a_worker(visit: Visit, stack: Stack) -> None:
    page = visit.page
    stack.processes()["market"].kill()
    expect(page.locator("#banner")).to_contain_text("not connected")
    expect(page.locator("#book-panel")).to_have_attribute("data-state", "live")
    expect(page.locator("#banner")).to_be_hidden()
    assert changes(lambda: page.locator("#book").inner_text(), times=1)


def test_a_narrow_window_scrolls_one_way_only(browser: Browser, stack: Stack) -> None:
    visit = Visit(browser, stack.gateway, width=390)
    expect(visit.page.locator("#submit")).to_be_visible()
    assert visit.page.evaluate("() => document.documentElement.scrollWidth") == 390
    visit.context.close()


def test_the_api_reference_shows_and_tries_operations(browser: Browser, stack: Stack) -> None:
    visit = Visit(browser, f"{stack.gateway}/docs")
    section = visit.page.locator("section", has_text="/v1/symbols").first
    section.locator(".trial summary").click()
    section.get_by_role("button", name="Send").click()
    expect(section.locator("pre")).to_contain_text("BTC-USDT")
    assert visit.errors == []
    visit.context.close()
