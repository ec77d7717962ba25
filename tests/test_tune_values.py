"""Values: canonical forms, what a profile may want, and what then should stand there."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tvops.tuning.model import Facts, Knob, ValueType
from tvops.tuning.values import (
    format_cpus,
    format_mask,
    normalise,
    parse_cpus,
    parse_mask,
    parse_number,
    parse_wanted,
    target,
    written,
)

FACTS = Facts(
    kernel=(6, 18, 0),
    release="6.18.0",
    memory_bytes=8 << 30,
    cpus=(0, 1, 2, 3),
    roles={"irq": (0, 2), "engine": (3,), "nobody": ()},
)

TYPES: tuple[ValueType, ...] = ("int", "ints", "choice", "word", "text", "cpulist", "cpumask")


def knob(type_: ValueType = "int", unit: str = "", **fields: object) -> Knob:
    given_fields = {"id": "some.knob", "kind": "sysctl", "where": "some.knob", "why": "w", "source": "s"}
    return msgspec.convert(given_fields | {"type": type_, "unit": unit} | fields, Knob)


def wanted_value(knob_: Knob, wish: object, current: str | None, facts: Facts = FACTS) -> str:
    return target(knob_, parse_wanted(knob_, wish), current, facts)


numbers = st.integers(min_value=-(10**12), max_value=10**12)
cpu_sets = st.frozensets(st.integers(min_value=0, max_value=4095), max_size=300)


# Canonical forms


@pytest.mark.parametrize(
    ("type_", "raw", "canonical"),
    [
        ("int", " 4096\n", "4096"),
        ("int", "007", "7"),
        ("int", "-0", "0"),
        ("int", "off\n", "off"),
        ("int", "--5", "--5"),
        ("int", "²", "²"),
        ("int", "9" * 5000, "9" * 5000),
        ("ints", "4096\t131072\t33554432\n", "4096 131072 33554432"),
        ("choice", "always [madvise] never\n", "madvise"),
        ("choice", "none [mq-deadline] kyber bfq", "mq-deadline"),
        ("choice", "madvise", "madvise"),
        ("choice", "[ a ] b", "a"),
        ("word", "performance\n", "performance"),
        ("text", "50  99\t99.9\n", "50 99 99.9"),
        ("cpulist", "0,1,2,3,8\n", "0-3,8"),
        ("cpulist", "\n", ""),
        ("cpulist", "3-1", "3-1"),
        ("cpulist", "999999999", "999999999"),
        ("cpumask", "0f\n", "0-3"),
        ("cpumask", "ff,00000000\n", "32-39"),
        ("cpumask", "1,0", "32"),
        ("cpumask", "00000000", ""),
        ("cpumask", "-1", "-1"),
        ("cpumask", "1_0", "1_0"),
        ("cpumask", "", ""),
    ],
)
def test_canonical_form(type_: ValueType, raw: str, canonical: str) -> None:
    assert normalise(type_, raw) == canonical


@given(st.sampled_from(TYPES), st.text(max_size=60) | st.text("0123456789abcdef,-[] \t\n", max_size=60))
def test_normalising_twice_is_normalising_once_except_for_masks(type_: ValueType, raw: str) -> None:
    once = normalise(type_, raw)
    again: ValueType = "cpulist" if type_ == "cpumask" and once != raw.strip() else type_
    assert normalise(again, once) == once


@given(cpu_sets)
def test_cpus_come_back_from_list_and_mask(cpus: frozenset[int]) -> None:
    canonical = format_cpus(tuple(cpus))
    assert parse_cpus(canonical) == tuple(sorted(cpus))
    mask = format_mask(tuple(cpus), bits=4096)
    assert parse_mask(mask) == tuple(sorted(cpus))
    assert all(len(group) == 8 for group in mask.split(","))
    assert len(mask.split(",")) == 128
    assert normalise("cpumask", written(knob("cpumask"), canonical)) == canonical
    assert normalise("cpulist", written(knob("cpulist"), canonical)) == canonical


def test_a_mask_has_the_groups_that_the_kernel_writes() -> None:
    assert format_mask(()) == "00000000"
    assert format_mask((0, 33)) == "00000002,00000001"
    assert format_mask((0,), bits=64) == "00000000,00000001"


@pytest.mark.parametrize("text", ["x", "0-", "1,,2", "3-1", "8192", "0-9999", "٣", "1" * 50, "0 1"])
def test_what_is_no_list_of_cpus(text: str) -> None:
    with pytest.raises(ValueError, match="CPUs"):
        parse_cpus(text)


@pytest.mark.parametrize("text", ["", "g", "-1", "1_0", "f,123456789", "0x", "f" * 5000])
def test_what_is_no_mask(text: str) -> None:
    with pytest.raises(ValueError, match="is not a mask of CPUs"):
        parse_mask(text)


# Numbers


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [
        ("16mb", "bytes", 16 << 20),
        ("16MB", "bytes", 16 << 20),
        ("64 kb", "kbytes", 64),
        ("1gb", "pages", 262144),
        ("50us", "us", 50),
        ("50us", "ns", 50_000),
        ("2s", "ms", 2000),
        ("-1", "us", -1),
        ("4096", "pages", 4096),
    ],
)
def test_numbers_in_the_unit_of_the_knob(text: str, unit: str, number: int) -> None:
    assert parse_number(text, unit) == number


def test_pages_have_the_size_of_the_host() -> None:
    assert parse_number("1mb", "pages", 65536) == 16
    large = msgspec.structs.replace(FACTS, page_size=65536)
    assert wanted_value(knob("int", "pages"), "50%", "7", large) == str((4 << 30) // 65536)
    with pytest.raises(ValueError, match="not a whole number of pages"):
        wanted_value(knob("int", "pages"), "4kb", "7", large)


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        ("5kb", "us", "kb does not fit a value in us"),
        ("5us", "bytes", "us does not fit a value in bytes"),
        ("5kb", "", "kb does not fit a value in plain numbers"),
        ("5xx", "bytes", "xx does not fit"),
        ("1b", "kbytes", "is not a whole number of kbytes"),
        ("1.5", "", "is not a number"),
        ("", "", "is not a number"),
        ("٣", "", "is not a number"),
        ("9" * 5000, "", "is not a number"),
    ],
)
def test_what_is_no_number_of_a_unit(text: str, unit: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_number(text, unit)


@given(st.integers(0, 10**9), st.sampled_from(["kb", "mb", "gb"]), st.sampled_from([4096, 16384, 65536]))
def test_pages_and_bytes_agree(number: int, suffix: str, page: int) -> None:
    size = parse_number(f"{number}{suffix}", "bytes")
    if size % page:
        with pytest.raises(ValueError, match="whole number"):
            parse_number(f"{number}{suffix}", "pages", page)
    else:
        assert parse_number(f"{number}{suffix}", "pages", page) * page == size


# What a profile may say


@pytest.mark.parametrize(
    ("type_", "unit", "wish", "message"),
    [
        ("int", "", True, "True is a YAML boolean; put the word in quotes"),
        ("ints", "", [1, False], "False is a YAML boolean"),
        ("int", "", None, "is empty; write '-'"),
        ("int", "", "", "is empty; write '-'"),
        ("ints", "", [], "is empty; write '-'"),
        ("word", "", {"a": 1}, "is neither a number nor a word"),
        ("ints", "", [[1], 2], "is neither a number nor a word"),
        ("int", "", "lots", "'lots' is not a number"),
        ("int", "", 1.5, "'1.5' is not a number"),
        ("int", "", ">=", "has no value behind an operator"),
        ("word", "", "=", "has no value behind an operator"),
        ("cpulist", "", "=", "has no value behind an operator"),
        ("word", "", "a||b", "has no value behind an operator"),
        ("int", "", ">=1|2", ">= takes one number"),
        ("int", "", "1|x", "'x' is not a number"),
        ("word", "", ">=a", ">= compares numbers, and this is a word"),
        ("cpulist", "", "<=3", "<= compares numbers, and this is a cpulist"),
        ("cpulist", "", "first", "is not a list of CPUs"),
        ("int", "bytes", "0%", "a share of memory is 1% to 100%"),
        ("int", "bytes", "101%", "a share of memory is 1% to 100%"),
        ("int", "bytes", "²%", "a share of memory is 1% to 100%"),
        ("int", "us", "5%", "this knob is not an amount of memory"),
        ("int", "percent", "5%", "this knob is not an amount of memory"),
    ],
)
def test_what_a_profile_may_not_say(type_: ValueType, unit: str, wish: object, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse_wanted(knob(type_, unit), wish)


def test_choices_are_checked_and_named() -> None:
    thp = knob("choice", choices=["always", "madvise", "never"])
    with pytest.raises(ValueError, match="'off' is none of always, madvise, never"):
        parse_wanted(thp, "madvise|off")
    assert wanted_value(thp, "madvise | never", "never") == "never"
    assert wanted_value(thp, "madvise|never", "always") == "madvise"
    assert wanted_value(thp, "madvise|never", None) == "madvise"


# What then should stand there


@given(numbers, numbers)
def test_raise_only_never_lowers_and_lower_only_never_raises(current: int, number: int) -> None:
    raised = int(wanted_value(knob(), f">={number}", str(current)))
    lowered = int(wanted_value(knob(), f"<={number}", str(current)))
    assert raised >= current
    assert raised >= number
    assert lowered <= current
    assert lowered <= number
    assert {raised, lowered} <= {current, number}


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from([0, -1]))
def test_no_limit_is_more_than_any_limit(current: int, number: int, unlimited: int) -> None:
    limit = knob(unlimited=unlimited)
    assume(unlimited not in (current, number))
    assert wanted_value(limit, f">={number}", str(unlimited)) == str(unlimited)
    assert wanted_value(limit, f"<={number}", str(unlimited)) == str(number)
    assert wanted_value(limit, f">={unlimited}", str(current)) == str(unlimited)
    assert wanted_value(limit, f"<={unlimited}", str(current)) == str(current)
    assert wanted_value(limit, number, str(unlimited)) == str(number)


def test_memory_without_a_limit_gets_one_and_a_lower_limit_stays() -> None:
    maxmemory = knob("int", "bytes", unlimited=0)
    assert wanted_value(maxmemory, "<=25%", "0") == str(2 << 30)
    assert wanted_value(maxmemory, "<=25%", str(1 << 30)) == str(1 << 30)
    assert wanted_value(maxmemory, ">=1gb", "0") == "0"


number_wish = st.builds("{}{}".format, st.sampled_from(["", "=", ">=", "<="]), numbers) | st.just("-")
alternatives = st.lists(numbers, min_size=1, max_size=3).map(lambda ns: "|".join(map(str, ns)))


@given(
    st.lists(number_wish | alternatives, min_size=1, max_size=4),
    st.data(),
    st.sampled_from([None, 0, -1]),
)
def test_the_target_of_numbers_is_a_fixed_point(
    wishes: list[str], data: st.DataObject, unlimited: int | None
) -> None:
    vector = knob("ints", unlimited=unlimited)
    current = data.draw(st.lists(numbers, min_size=len(wishes), max_size=len(wishes)))
    once = wanted_value(vector, wishes, " ".join(map(str, current)))
    assert wanted_value(vector, wishes, once) == once
    assert normalise("ints", once) == once
    for wish, before, after in zip(wishes, current, once.split(), strict=True):
        if wish == "-":
            assert int(after) == before


words = st.text("abcdef+-_0123456789", min_size=1, max_size=8).filter(lambda w: w != "-")


@given(
    st.sampled_from(["choice", "word", "text"]),
    st.lists(words, min_size=1, max_size=3).map("|".join) | st.just("-"),
    words,
)
def test_the_target_of_words_is_a_fixed_point(type_: ValueType, wish: str, current: str) -> None:
    once = wanted_value(knob(type_), wish, current)
    assert wanted_value(knob(type_), wish, once) == once
    assert once == current or wish != "-"


@given(
    st.sampled_from(["cpulist", "cpumask"]),
    st.sampled_from(["$irq", "$engine", "$nobody", "all", "none", "-"])
    | cpu_sets.map(lambda s: format_cpus(tuple(s))),
    cpu_sets,
)
def test_the_target_of_cpus_is_a_fixed_point(type_: ValueType, wish: str, current: frozenset[int]) -> None:
    assume(wish)
    once = wanted_value(knob(type_), wish, format_cpus(tuple(current)))
    assert wanted_value(knob(type_), wish, once) == once
    assert format_cpus(parse_cpus(once)) == once


def test_any_of_several_numbers_is_good_enough() -> None:
    assert wanted_value(knob(), "60|30", "30") == "30"
    assert wanted_value(knob(), "60|30", "45") == "60"
    assert wanted_value(knob("int", "us"), "1ms | 50us", "50") == "50"


def test_roles_and_words_for_cpus() -> None:
    affinity = knob("cpulist")
    assert wanted_value(affinity, "$irq", "0-3") == "0,2"
    assert wanted_value(affinity, "all", "0") == "0-3"
    assert wanted_value(affinity, "none", "0") == ""
    assert wanted_value(affinity, "2,1", None) == "1-2"
    with pytest.raises(ValueError, match=r"no CPU role \$hot; there are engine, irq, nobody"):
        wanted_value(affinity, "$hot", "0")


def test_numbers_of_a_vector_are_wished_one_by_one() -> None:
    rmem = knob("ints", "bytes", id="net.ipv4.tcp_rmem")
    assert wanted_value(rmem, ["-", "-", ">=16mb"], "4096 131072 6291456") == "4096 131072 16777216"
    assert wanted_value(rmem, "- - >=16mb", "4096 131072 33554432") == "4096 131072 33554432"
    with pytest.raises(ValueError, match="has 3 numbers, and 2 are wanted"):
        wanted_value(rmem, "- -", "4096 131072 33554432")
    with pytest.raises(ValueError, match="the current value is not known"):
        wanted_value(rmem, ["-", "-", "16mb"], None)


@pytest.mark.parametrize("name", ["tcp_rmem", "tcp_wmem", "tcp_mem", "udp_mem"])
def test_an_inverted_triple_is_refused(name: str) -> None:
    vector = knob("ints", id=f"net.ipv4.{name}")
    with pytest.raises(ValueError, match="16777216 131072 4096 is not in ascending order"):
        wanted_value(vector, [16777216, 131072, 4096], "4096 131072 33554432")
    with pytest.raises(ValueError, match="ascending"):
        wanted_value(vector, ["-", "-", 4096], "4096 131072 33554432")


def test_an_inverted_range_of_ports_is_refused() -> None:
    ports = knob("ints", id="net.ipv4.ip_local_port_range")
    assert wanted_value(ports, "10240 60999", "32768 60999") == "10240 60999"
    with pytest.raises(ValueError, match="ascending"):
        wanted_value(ports, "60999 10240", "32768 60999")


def test_other_vectors_may_have_any_order() -> None:
    assert wanted_value(knob("ints", "bytes"), "2mb 1mb 60", "1 2 3") == "2097152 1048576 60"


def test_what_shows_no_number_takes_an_exact_wish_only() -> None:
    assert wanted_value(knob(), "5", "off") == "5"
    with pytest.raises(ValueError, match="shows 'off', which is not a number"):
        wanted_value(knob(), ">=5", "off")


@given(st.integers(1, 100), st.sampled_from(["bytes", "kbytes", "pages"]))
def test_a_share_of_memory(share: int, unit: str) -> None:
    size = {"bytes": 1, "kbytes": 1024, "pages": 4096}[unit]
    assert int(wanted_value(knob("int", unit), f"{share}%", None)) == (8 << 30) * share // 100 // size
