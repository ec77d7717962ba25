"""The knob catalogue and what is said of a host that differs from it."""

from pathlib import Path

import pytest

from tvops.errors import UsageError
from tvops.tuning.host import Knob, host_notes, is_met, load_catalogue


@pytest.mark.parametrize(
    "wanted, current, met",
    [
        ("=1", "1", True),
        ("=1", "0", False),
        (">=4096", "4096", True),
        (">=4096", "128", False),
        (">=4096", "10000", True),
        ("madvise|never", "always [madvise] never", True),
        ("madvise|never", "[always] madvise never", False),
        (">=1", "max", False),
    ],
)
def test_comparison(wanted: str, current: str, met: bool) -> None:
    assert is_met(wanted, current) is met


def test_notes_name_the_key_the_values_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("0\n")
    knobs = [
        Knob("vm.x", str(tmp_path / "a"), "=1", "because", "doc"),
        Knob("vm.y", str(tmp_path / "b"), "=1", "", ""),
    ]
    assert host_notes(knobs) == ["vm.x is 0, wanted =1: because"]


def test_the_shipped_catalogue_loads_and_every_path_is_a_kernel_one() -> None:
    knobs = load_catalogue()
    assert len({knob.id for knob in knobs}) == len(knobs) >= 3
    assert all(knob.path.startswith(("/proc/sys/", "/sys/")) for knob in knobs)


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("knobs: [{id: 1}]")
    with pytest.raises(UsageError, match=r"bad\.yaml"):
        load_catalogue(tmp_path)
