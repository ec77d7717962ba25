"""Exchange decimals against exact fractions."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvops.engine.feeds.levels import MAX_UNITS, LevelParser, PieceStatus
from tvops.engine.instruments import load_instruments

TABLE = load_instruments()
PARSER = LevelParser(TABLE)
decimals = st.decimals(0, 10**12, allow_nan=False, allow_infinity=False, places=9).map(lambda d: f"{d:f}")
texts = (
    decimals | st.integers(0, 10**30).map(str) | st.sampled_from(["0", "0.0", "1.", ".5", "-1", "NaN", "1e5", ""])
)


def model(instrument: int, levels: list[list[str]]) -> tuple[PieceStatus, list[tuple[int, int]], int]:
    row, result, cut = TABLE[instrument], [], 0
    for price_text, quantity_text in levels:
        for text in (price_text, quantity_text):
            whole, _, fraction = text.partition(".")
            if not whole.isdigit() or ("." in text and not fraction.isdigit()):
                return PieceStatus.MALFORMED, [], 0
        price = Fraction(price_text) / Fraction(row.price.text)
        quantity = Fraction(quantity_text) / Fraction(row.quantity.text)
        if price % 1 or price >= MAX_UNITS or quantity >= MAX_UNITS:
            return PieceStatus.INEXACT, [], 0
        cut += quantity % 1 != 0
        result.append((int(price), int(quantity)))
    return PieceStatus.OK, result, cut


@given(
    st.lists(st.tuples(st.integers(0, len(TABLE) - 1), st.lists(st.tuples(texts, texts).map(list), max_size=4)))
)
def test_levels_are_exact(pieces: list[tuple[int, list[list[str]]]]) -> None:
    before = PARSER.cut
    raw = [json.dumps(levels, separators=(",", ":")).encode() for _, levels in pieces]
    bounds, status = PARSER.parse(raw, [instrument for instrument, _ in pieces])
    for k, (instrument, levels) in enumerate(pieces):
        expected, rows, _ = model(instrument, levels)
        assert status[k] == expected or (expected, status[k]) == (PieceStatus.MALFORMED, PieceStatus.INEXACT)
        part = slice(bounds[k], bounds[k + 1])
        assert list(zip(PARSER.prices[part].tolist(), PARSER.lots[part].tolist(), strict=True)) == rows
    assert PARSER.cut - before >= sum(model(*piece)[2] for piece in pieces)


@given(st.binary(max_size=60))
def test_garbage_is_refused(raw: bytes) -> None:
    bounds, status = PARSER.parse([raw, b'[["1","2"]]'], [0, 0])
    assert status[1] == PieceStatus.OK
    assert bounds[2] - bounds[1] == 1
    if status[0] == PieceStatus.OK:
        assert len(json.loads(raw)) == bounds[1]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("[]", PieceStatus.OK),
        ('[["1.00000000","2"]]', PieceStatus.OK),
        ('[["1.001","2"]]', PieceStatus.INEXACT),
        ('[["1","2","3"]]', PieceStatus.MALFORMED),
        ('[["1"]]', PieceStatus.MALFORMED),
        ("[[1,2]]", PieceStatus.MALFORMED),
        ('[["-1","2"]]', PieceStatus.MALFORMED),
        ('[["1","NaN"]]', PieceStatus.MALFORMED),
        ('[["1","2"],]', PieceStatus.MALFORMED),
        ('[["1","2"]', PieceStatus.MALFORMED),
        ('[["99999999999999999999999","2"]]', PieceStatus.INEXACT),
        ("", PieceStatus.MALFORMED),
        ("null", PieceStatus.MALFORMED),
    ],
)
def test_spellings(raw: str, status: PieceStatus) -> None:
    assert PARSER.parse([raw.encode()], [0])[1][0] == status


def test_dust_is_cut_and_counted() -> None:
    before = PARSER.cut
    PARSER.parse([b'[["200000.00000000","25.42618900"]]'], [0])
    assert (PARSER.lots[0], PARSER.cut - before) == (2_542_618, 1)
