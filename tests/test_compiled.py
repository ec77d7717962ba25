"""The kernel cache on disk: used again while the sources are the same, and not after one has changed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tvops.engine import compiled

PART = "import numba\n\n@numba.njit\ndef part():\n    return {}\n"
WHOLE = (
    "from tvops.engine.compiled import kernel\nfrom parts_of_a_test import part\n\n"
    "@kernel\ndef whole():\n    return part()\n"
)
NAMES = ("parts_of_a_test", "whole_of_a_test")


def test_a_changed_neighbour_file_makes_the_cache_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    # bytecode counts as fresh where time (in seconds) and size of its source are as they were
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / f"{NAMES[1]}.py").write_text(WHOLE)

    def answer(number: int) -> tuple[int, int]:
        """Give what a process says that starts now: it knows nothing but what is on disk."""
        (tmp_path / f"{NAMES[0]}.py").write_text(PART.format(number))
        for name in NAMES:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        compiled._digest.cache_clear()
        whole = importlib.import_module(NAMES[1]).whole
        return whole(), sum(whole.stats.cache_hits.values())

    try:
        assert answer(1) == (1, 0)
        assert answer(1) == (1, 1)
        assert answer(2) == (2, 0)
    finally:
        for name in NAMES:
            sys.modules.pop(name, None)
