"""Decimal strings become ticks and lots exactly, or are refused."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvops.engine.instruments import DecimalError, Step, load_instruments
from tvops.errors import UsageError

STEPS = ("0.01", "0.001", "1", "10", "0.25", "0.00001", "5", "0.05")


@given(st.sampled_from(STEPS), st.integers(0, 1 << 40))
def test_steps_survive_the_way_to_text_and_back(size: str, steps: int) -> None:
    step = Step("tick size", size)
    text = step.format(steps)
    assert Decimal(text) == Decimal(size) * steps
    assert step.parse(text) == steps


@given(st.sampled_from(STEPS), st.decimals(0, 10**12, allow_nan=False, places=6))
def test_parse_agrees_with_decimal_division(size: str, value: Decimal) -> None:
    step = Step("lot size", size)
    steps, rest = divmod(value, Decimal(size))
    if rest:
        with pytest.raises(DecimalError, match=f"lot size {size}"):
            step.parse(f"{value:f}")
    else:
        assert step.parse(f"{value:f}") == steps


@given(st.text(max_size=30))
def test_other_text_is_refused(text: str) -> None:
    step = Step("tick size", "0.01")
    try:
        step.parse(text)
    except DecimalError:
        return
    assert text.isascii()
    assert Decimal(text) >= 0


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e3", "NaN", "inf", "1_0", "٣", " 1", "1.", ".5", "1\n", "9" * 21]
)
def test_spellings_that_are_not_plain_decimals_are_refused(text: str) -> None:
    with pytest.raises(DecimalError):
        Step("tick size", "0.01").parse(text)


def test_the_error_names_the_lot_size() -> None:
    with pytest.raises(DecimalError, match=r"0\.1000001 is not a multiple of the lot size 0\.001"):
        Step("lot size", "0.001").parse("0.1000001")


def test_shipped_instruments_load() -> None:
    table = load_instruments()
    assert {"BTC-USDT", "ETH-USDT"} <= set(table.by_symbol)
    assert len(table) >= 4
    assert table.by_feed("binance")["BTCUSDT"].symbol == "BTC-USDT"
    assert len({table.scale_digest(i) for i in range(len(table))}) == len(table)


@pytest.mark.parametrize(
    "text, named",
    [
        ("", "instruments"),
        ("instruments: []", "0 instruments"),
        ("instruments: [{symbol: A}]", "tick_size"),
        ("instruments: {", "expected"),
        ("other: 1", "instruments"),
        pytest.param("instruments: " + "[" * 100_000, ":1: nested", id="nested so deep that a recursion crashes"),
        ("instruments: 2024-13-45", "array"),
        ("instruments: !!int abc", ":1: 'abc'"),
        ("instruments: !!bool abc", ":1: 'abc'"),
        ("instruments: !!timestamp abc", "array"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "instruments.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=named) as caught:
        load_instruments(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match="instruments file /does/not/exist: "):
        load_instruments(Path("/does/not/exist"))


@pytest.mark.parametrize(
    "key, value, named",
    [
        ("tick_size", "0", "tick size"),
        ("tick_size", "nan", "tick size"),
        ("price_high", "999999999", "price_high"),
        ("lot_size", "-1", "lot size"),
        ("symbol", "btc usdt", "symbol"),
        ("max_quantity", "0.000001", "lot size"),
        ("collar_bps", "-5", "collar_bps"),
    ],
)
def test_a_wrong_entry_names_the_symbol_and_the_key(tmp_path: Path, key: str, value: str, named: str) -> None:
    entry = {
        "symbol": "X-Y", "tick_size": "'0.01'", "lot_size": "'0.001'", "price_low": "'1'", "price_high": "'100'",
        "max_quantity": "'10'",
        "max_notional": "'1000'", "max_position": "'10'", "sim_price": "'50'", "collar_bps": "5",
    }  # fmt: skip
    entry[key] = value if key == "collar_bps" else f"'{value}'"
    path = tmp_path / "instruments.yaml"
    path.write_text("instruments:\n  - {" + ", ".join(f"{k}: {v}" for k, v in entry.items()) + "}\n")
    with pytest.raises(UsageError, match=named):
        load_instruments(path)
