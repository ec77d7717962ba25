"""The kernel's command line: read as the kernel reads it, never written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvops.tuning.host import Host
from tvops.tuning.kinds.boot import FLAG, BootDriver, parse_command_line
from tvops.tuning.model import Facts, Knob, NotWrittenError, Place, Profile, State, Wish
from tvops.tuning.plan import make_plan

LINE = Place("/proc/cmdline")


def knob(where: str, type: Any = "word") -> Knob:  # noqa: A002
    name = f"boot.{where}"
    return Knob(id=name, kind="boot", where=where, type=type, scope="boot", reboot=True, why="w", source="s")


def driver(root: Path, line: str) -> BootDriver:
    (root / "proc").mkdir()
    (root / "proc/cmdline").write_text(line + "\n")
    return BootDriver(Host(root))


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("quiet skew_tick=1", {"quiet": FLAG, "skew_tick": "1"}),
        ("a=1 a=2", {"a": "2"}),
        ('dyndbg="file a.c +p" x=1', {"dyndbg": "file a.c +p", "x": "1"}),
        ('"dyndbg=file a.c +p" x', {"dyndbg": "file a.c +p", "x": FLAG}),
        ('x="never closed y=1', {"x": "never closed y=1"}),
        ("no-such_name=a-b", {"no_such_name": "a-b"}),
        ("a= b", {"a": "", "b": FLAG}),
        ("root=UUID=1-2 ro", {"root": "UUID=1-2", "ro": FLAG}),
        ("a=1 -- a=2 idle=poll", {"a": "1"}),
        ("a='x y'", {"a": "'x", "y'": FLAG}),
        ("  \t a\n", {"a": FLAG}),
        ("", {}),
    ],
)
def test_a_line_is_read_as_the_kernel_reads_it(line: str, given: dict[str, str]) -> None:
    assert parse_command_line(line) == given


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_.]{0,8}", fullmatch=True), st.text("ab0,-= ", max_size=12)))
def test_whatever_is_quoted_comes_back(parameters: dict[str, str]) -> None:
    line = " ".join(f'{name}="{value}"' for name, value in parameters.items())
    assert parse_command_line(line) == parameters


@pytest.mark.parametrize(
    ("line", "each", "value", "raw"),
    [
        ("nohz_full=2,3,4-7", knob("nohz_full", "cpulist"), "2-7", "2,3,4-7"),
        ("isolcpus=managed_irq,domain,2,3", knob("isolcpus", "cpulist"), "2-3", "managed_irq,domain,2,3"),
        ("isolcpus=managed_irq,domain,2,3", knob("isolcpus", "text"), "managed_irq,domain,2,3", None),
        ("isolcpus=1-31:2/4", knob("isolcpus", "cpulist"), "1-31:2/4", None),
        ("nosoftlockup", knob("nosoftlockup"), "set", None),
        ("mitigations=auto,nosmt", knob("mitigations", "text"), "auto,nosmt", None),
        ("processor.max-cstate=01", knob("processor.max_cstate", "int"), "1", "01"),
        ("quiet", knob("skew_tick", "int"), "", None),
    ],
)
def test_a_parameter_has_its_canonical_value(
    tmp_path: Path, line: str, each: Knob, value: str, raw: str | None
) -> None:
    shown = driver(tmp_path, line).read(each, LINE)
    assert (shown.status, shown.value, shown.raw) == ("present", value, value if raw is None else raw)


def test_nothing_is_ever_written(tmp_path: Path) -> None:
    boot = driver(tmp_path, "quiet")
    with pytest.raises(NotWrittenError, match="at boot only"):
        boot.write(knob("skew_tick"), LINE, "1")
    with pytest.raises(NotWrittenError, match="at boot only"):
        boot.restore(knob("skew_tick"), LINE, State("present", "1", "1"))
    assert boot.shell(knob("skew_tick"), LINE, "1") is None
    assert (tmp_path / "proc/cmdline").read_text() == "quiet\n"


def test_a_tree_without_a_command_line_has_no_such_knobs(tmp_path: Path) -> None:
    assert BootDriver(Host(tmp_path)).places(knob("quiet")) == []


def test_a_parameter_that_is_not_set_is_planned_for_the_next_boot(tmp_path: Path) -> None:
    boot = driver(tmp_path, "nohz_full=2-3")
    catalogue = {each.id: each for each in (knob("skew_tick", "int"), knob("nohz_full", "cpulist"), knob("nosmt"))}
    wishes = (
        Wish(knob="boot.skew_tick", value="1"),
        Wish(knob="boot.nohz_full", value="3,2"),
        Wish(knob="boot.nosmt", value=FLAG),
    )
    facts = Facts(kernel=(6, 1, 0), release="6.1.0", memory_bytes=1 << 30, privileged=True)
    profile = Profile(name="p", description="", settings={}, wishes=wishes, facts=facts)
    states = {item.id: item.state for item in make_plan(profile, catalogue, {"boot": boot})}
    assert states == {"boot.skew_tick": "reboot", "boot.nohz_full": "met", "boot.nosmt": "reboot"}


def test_this_host_was_started_with_what_its_command_line_says() -> None:
    boot = BootDriver(Host())
    words = Path("/proc/cmdline").read_text().split(" -- ")[0].split()
    plain = [word for word in words if '"' not in word]
    flags = {word for word in plain if "=" not in word}
    for flag in flags:
        assert boot.read(knob(flag), LINE).value == FLAG
    for word in set(plain) - flags:
        name, _, value = word.partition("=")
        if sum(other.startswith(f"{name}=") for other in words) == 1:
            assert boot.read(knob(name, "text"), LINE).value == value
