"""The kernel cache on disk: used again while the sources are the same, and not after one has changed."""

import subprocess
import sys

PART = "import numba\n\n@numba.njit\ndef part():\n    return {}\n"
WHOLE = (
    "from tvops.engine.compiled import kernel\nfrom parts import part\n\n"
    "@kernel\ndef whole():\n    return part()\n\n"
    "if __name__ == '__main__':\n    print(whole(), sum(whole.stats.cache_hits.values()))\n"
)


def test_a_changed_neighbour_file_makes_the_cache_stale(tmp_path):
    (tmp_path / "whole.py").write_text(WHOLE)

    def answer(number):
        (tmp_path / "parts.py").write_text(PART.format(number))
        # -B, because bytecode counts as fresh where time (in seconds) and size of its source are as they were
        return subprocess.run(
            [sys.executable, "-B", "whole.py"], cwd=tmp_path, capture_output=True, text=True
        ).stdout.split()

    assert answer(1) == ["1", "0"]
    assert answer(1) == ["1", "1"]
    assert answer(2) == ["2", "0"]
