"""`tvops top` on a screen: keys, mouse, sizes and looks with made-up data."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from textual.command import CommandList
from textual.events import Key

from tests.stack import free_port
from tests.top_documents import BEGIN, GATEWAY, MARKET, SECOND, STACK, Engine, Market, model_after
from tests.top_screen import Clock, running, showing
from tvops import cli
from tvops.engine.telemetry.document import Server
from tvops.errors import UsageError
from tvops.telemetry_client import Reading
from tvops.top import sampler
from tvops.top.addresses import Stack as Watched
from tvops.top.app import PACES, Top
from tvops.top.choices import Choices, read_choices, write_choices
from tvops.top.desk import Desk
from tvops.top.frame import VIEWS
from tvops.top.lines import plain
from tvops.top.model import Model
from tvops.top.recording import Recording, Writer
from tvops.top.replay import Replay

ROOT = Path(__file__).parent.parent
SIZES = ((80, 24), (120, 40))


def golden(name: str, text: str) -> None:
    """Compare a screen with the one that was looked at; UPDATE_SCREENS=1 keeps the present one instead."""
    file = ROOT / "tests" / "top_screens" / f"{name}.txt"
    if os.environ.get("UPDATE_SCREENS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text + "\n")
    assert text + "\n" == file.read_text(), f"{name} looks different; if it is meant to, run with UPDATE_SCREENS=1"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", [view.name for view in VIEWS])
async def test_a_view_looks_as_it_did(view: str, size: tuple[int, int]) -> None:
    async with showing(size) as screen:
        screen.desk.show(view)
        screen.app.tick()
        screen.app.draw()
        assert len(screen.lines) == size[1]
        assert max(map(len, screen.lines)) <= size[0]
        golden(f"{view}-{size[0]}x{size[1]}", screen.text)


@pytest.mark.parametrize(
    "name, view, theme",
    [
        ("overview", "overview", ""),
        ("latency", "latency", ""),
        ("book", "book", ""),
        ("knobs", "knobs", ""),
        ("light", "redis", "textual-light"),
    ],
)
async def test_screenshots_of_the_documentation_are_those_of_today(name: str, view: str, theme: str) -> None:
    async with showing((120, 40), theme=theme) as screen:
        screen.desk.show(view)
        screen.app.tick()
        screen.app.draw()
        await screen.settle()
        drawing = screen.app.export_screenshot(title="tvops top")
    file = ROOT / "docs" / f"top-{name}.svg"
    if os.environ.get("UPDATE_SCREENS"):
        file.write_text(drawing)
    assert shown_text(drawing) == shown_text(file.read_text()), f"{file.name} is old; run with UPDATE_SCREENS=1"


def shown_text(drawing: str) -> list[str]:
    return [text.replace("&#160;", " ") for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawing)]


async def test_what_changes_is_drawn_on_the_terminal() -> None:
    async with showing() as screen:
        drawing = screen.app.export_screenshot()
        assert "engine" in drawing.replace("&#160;", " ")
        engine = Engine(started=BEGIN + 40 * SECOND, pid=999)
        text = await screen.feed(Reading(GATEWAY, engine.document(BEGIN + 41 * SECOND), "", 31 * SECOND, True))
        assert "14:14:01" in text
        assert "14:14:01" in "".join(shown_text(screen.app.export_screenshot()))


async def test_every_view_has_a_key_and_tab_goes_round() -> None:
    async with showing() as screen:
        for view in VIEWS:
            await screen.press(view.letter)
            assert screen.desk.view is view
        await screen.press("tab")
        assert screen.desk.view is VIEWS[0]
        await screen.press("shift+tab")
        assert screen.desk.view is VIEWS[-1]
        await screen.press("escape")
        assert screen.desk.view.name == "overview"


async def test_the_cursor_moves_with_vim_keys_arrows_and_the_mouse() -> None:
    async with showing() as screen:
        await screen.press("4", "j", "j", "down", "k")
        assert screen.desk.choice.cursor == 2
        await screen.press("G")
        assert screen.desk.choice.cursor == 39
        assert screen.lines[-2].startswith("▸")
        await screen.press("j")
        assert screen.desk.choice.cursor == 39
        await screen.press("g")
        assert screen.desk.choice.cursor == 0
        await screen.press("ctrl+d")
        assert screen.desk.choice.cursor == 12
        await screen.click(5, 6)
        assert screen.desk.choice.cursor == 2
        await screen.click(4, 1)
        assert screen.desk.view.name == "overview"
        await screen.click(2, 23)
        assert screen.app.focused is not screen.app.panel  # the filter is open


async def test_a_click_on_a_title_sorts() -> None:
    async with showing() as screen:
        await screen.press("4")
        place = screen.lines[3].index("messages")
        await screen.click(place, 3)
        assert screen.desk.choice.sort == "messages"
        assert screen.lines[4].split()[5:7] == ["40", "000"]


async def test_the_filter_is_a_regular_expression_that_can_be_turned_over() -> None:
    async with showing() as screen:
        await screen.press("8", "slash", *"breach", "enter")
        rows = [line for line in screen.lines[4:-1] if line]
        assert len(rows) == 1
        assert "memory" in rows[0]
        await screen.press("slash", "home", "!", "enter")
        rows = [line for line in screen.lines[4:-1] if line]
        assert len(rows) == 3
        assert not any("BREACH" in row for row in rows)
        await screen.press("escape")
        assert screen.desk.choice.pattern == ""
        await screen.press("slash", "(", "[")
        assert "is no regular expression" in "".join(screen.lines[-3:-1])  # the last one is where it is typed
        await screen.press("escape")
        assert screen.app.focused is screen.app.panel


async def test_keys_in_a_burst_are_typed_into_the_filter() -> None:
    async with showing() as screen:
        await screen.press("8")
        for key in ("slash", "q", "r", "x", "backspace"):
            character = {"slash": "/", "backspace": "\x7f"}.get(key, key)
            screen.app.post_message(Key(key, character))
        await screen.settle()
        assert screen.desk.choice.pattern == "qr"
        assert screen.app.focused is not screen.app.panel
        await screen.press("escape", "7", "8")
        for key in ("slash", "b", "enter", "7"):
            screen.app.post_message(Key(key, {"slash": "/", "enter": "\r"}.get(key, key)))
        await screen.settle()
        assert screen.app.focused is screen.app.panel
        assert screen.desk.view.name == "redis"


async def test_a_filter_that_could_try_for_ever_leaves_the_keys_alive() -> None:
    async with showing((120, 40)) as screen:
        await screen.press("8", "slash", *"([a-z ]|[a-z ]|[a-z ])+!")
        assert "too many ways" in "".join(screen.lines[-3:-1])
        await screen.press("enter")
        screen.clock.now += 5 * SECOND
        await screen.press("g")
        assert "filter ([a-z ]|[a-z ]|[a-z ])+! as plain text" in screen.lines[-1]
        await screen.press("escape")
        assert "memory" in screen.text


async def test_a_chord_sorts_and_turns_and_lets_go() -> None:
    async with showing() as screen:
        await screen.press("4", "o")
        assert screen.lines[-2].startswith(" sort by: p peer  s state")
        await screen.press("m")
        assert screen.desk.choice.sort == "messages"
        assert "messages▼" in screen.lines[3]
        await screen.press("o", "m")
        assert "messages▲" in screen.lines[3]
        await screen.press("o", "m")
        assert screen.desk.choice.sort == ""
        await screen.press("o", "escape")
        assert screen.desk.view.name == "sessions"


@pytest.mark.parametrize("view", ["overview", "sessions", "knobs", "latency"])
@pytest.mark.parametrize("key", ["o", "c"])
async def test_every_letter_of_a_chord_fits_the_narrowest_terminal(view: str, key: str) -> None:
    async with showing((60, 12)) as screen:
        screen.desk.show(view)
        keys_line = (await screen.press("g")).splitlines()[-1]
        text = await screen.press(key)
        hint = text[text.index("sort by:" if key == "o" else "show or hide:") :]
        columns = screen.desk.view.columns if key == "o" else screen.desk.view.columns[1:]
        for column in columns:
            if key == "c" or column.order is not None:
                assert f"{column.letter} {column.title or column.key}" in hint
        assert len(screen.lines) == 12
        assert (await screen.press("escape")).splitlines()[-1] == keys_line


async def test_an_event_that_is_cut_is_told_in_full_at_the_cursor() -> None:
    async with showing((60, 12)) as screen:
        assert "conflations in a row" not in await screen.press("8")
        assert "  session 7: dropped: 10 conflations in a row" in await screen.press("j", "j")


async def test_knobs_are_sorted_filtered_and_told_in_full() -> None:
    async with showing() as screen:
        await screen.press("9")
        assert screen.lines[6].split()[-1] == "DRIFTED"
        assert "/etc/sysctl.d/90-web.conf" in screen.lines[-2]
        await screen.press("slash", *"buffer-limit", "enter")
        assert "redis.client-output-buffer-limit.pubsub (ledger, market, results): 268435456" in screen.text
        await screen.press("escape", "9", "o", "k")
        assert screen.lines[6].startswith("▸cpu.dma_latency")
        await screen.press("c", "w", "escape")
        assert "wanted" not in screen.lines[5]
        await screen.press("c", "w", "escape", "slash", *"nothing is like it", "enter")
        assert "no knob matches the filter" in screen.text


async def test_a_knob_that_was_not_read_again_looks_stale_and_one_that_is_told_once_does_not() -> None:
    async with showing((120, 40)) as screen:
        await screen.press("9")
        roles = {
            plain(line)[1:].split()[0]: {span.role for span in line if span.text.strip()}
            for line in screen.app.last_lines[6:22]
        }
        assert roles["redis.maxmemory-policy"] == {"dim"}
        assert "ok" in roles["process.gc_threshold"]


async def test_what_stands_below_the_knobs_is_reached_on_a_small_terminal() -> None:
    async with showing() as screen:
        first = await screen.press("9")
        assert "processes" not in first
        assert "ledger server" in await screen.press("G")
        assert screen.lines[-2].startswith("▸ledger server")
        assert await screen.press("g") == first
        await screen.press(*"jjjjjjjjjjjjjjjjjjjjjjjj")  # as many as there are knobs, and two more
        assert "─ services ─" in screen.text
        await screen.press("slash", *"nothing is like it", "enter")
        assert "no knob matches the filter" in screen.text
        assert "─ processes ─" in await screen.press("G")


def servers_of(**ledger: object) -> list[Reading]:
    """Give what a stack tells in two seconds that measures six round trips; ``ledger`` is told of its server."""
    engine, readings = Engine(), []
    for second in (31, 32):
        document = engine.document(BEGIN + second * SECOND)
        trip = document.stages["redis_round_trip_ledger"]
        trips = {f"redis_round_trip_{role}": trip for role in ("market", "results", "a", "b", "c")}
        servers = (msgspec.structs.replace(document.servers[0], **ledger), *document.servers[1:])
        document = msgspec.structs.replace(document, stages={**document.stages, **trips}, servers=servers)
        readings.append(Reading(GATEWAY, document, "", second * SECOND, True))
    return readings


async def test_the_slow_log_is_reached_on_a_small_terminal() -> None:
    async with showing() as screen:
        await screen.feed(*servers_of())
        first = await screen.press("7")
        assert "slow log" not in first
        await screen.press("G")
        assert screen.lines[-2].startswith("▸ ledger    14:12:40")
        assert "XADD orders" in screen.lines[-2]
        await screen.press("k")
        assert screen.lines[-2].startswith("▸")
        assert await screen.press("g") == first


@pytest.mark.parametrize(
    "used, policy, text, role",
    [
        (128 << 20, "noeviction", "■ 100%", "breach"),
        (100 << 20, "noeviction", "▲ 78%", "warn"),
        (80 << 20, "noeviction", "62%", ""),
        (128 << 20, "allkeys-lru", "100%", ""),
    ],
)
async def test_memory_of_a_server_is_judged_by_the_metric_and_has_a_mark(
    used: int, policy: str, text: str, role: str
) -> None:
    reading = servers_of(used=used, policy=policy)[-1]
    assert reading.telemetry is not None
    metrics = tuple(
        msgspec.structs.replace(metric, target=70.0, limit=90.0) if metric.name == "tv_redis_memory" else metric
        for metric in reading.telemetry.metrics
    )
    async with showing((120, 60)) as screen:
        document = msgspec.structs.replace(reading.telemetry, metrics=metrics)
        await screen.feed(reading._replace(telemetry=document))
        for view in ("1", "7"):
            await screen.press(view)
            spans = [span for line in screen.app.last_lines for span in line if re.search(r"\d%", span.text)]
            ledger = next(span for span in spans if span.text.split(" MB ")[-1].strip() == text)
            assert ledger.role == role or (ledger.role, role) == ("cursor", "")
        unknown = msgspec.structs.replace(document, metrics=(), time=document.time + 1)
        await screen.feed(reading._replace(telemetry=unknown))
        assert "■" not in "".join(line for line in screen.lines if "MB" in line)


async def test_without_a_table_the_counts_are_shown() -> None:
    engine = Engine()
    document = msgspec.structs.replace(engine.document(BEGIN + 31 * SECOND), knobs=())
    async with showing() as screen:
        await screen.feed(Reading(GATEWAY, document, "", 31 * SECOND, True))
        text = await screen.press("9")
        assert "profile prod   41 in force, 3 left out" in text
        assert "no port tells of the knobs" in text


async def test_columns_are_hidden_and_kept_for_the_next_time(tmp_path: Path) -> None:
    file = tmp_path / "below" / "top.yaml"
    async with showing(path=file) as screen:
        await screen.press("4")
        assert "subs" in screen.lines[3]
        await screen.press("c", "b", "escape")
        assert "subs" not in screen.lines[3]
        await screen.press("o", "u")
    choices, told = read_choices(file)
    assert told == ""
    assert choices.tables["sessions"].hidden == ["subscriptions"]
    desk = Desk(model_after(30)[0], choices)
    async with showing(desk=desk) as screen:
        await screen.press("4")
        assert "subs" not in screen.lines[3]
        assert "unsent▼" in screen.lines[3]


def test_choices_are_kept_in_the_file_that_a_link_names(tmp_path: Path) -> None:
    file, link = tmp_path / "dotfiles.yaml", tmp_path / "top.yaml"
    link.symlink_to(file)
    write_choices(link, Choices("nord"))
    assert link.is_symlink()
    assert read_choices(file) == (Choices("nord"), "")
    with pytest.raises(UsageError, match=r"top\.yaml: cannot be written: "):
        write_choices(file / "below" / "top.yaml", Choices())


async def test_the_trend_can_be_hidden() -> None:
    async with showing(size=(120, 40)) as screen:
        assert "trend" in screen.lines[2]
        await screen.press("c", "t", "escape")
        assert "trend" not in screen.lines[2]
        await screen.press("c", "t", "escape")
        assert "trend" in screen.lines[2]


@pytest.mark.parametrize("view", PACES)
async def test_costly_views_take_new_figures_at_their_pace_and_keys_at_once(view: str) -> None:
    model, _ = model_after(30)
    last = model.sources[GATEWAY].document
    async with showing(size=(120, 40), desk=Desk(model)) as screen:
        screen.desk.show(view)
        await screen.press("j")
        drawn = screen.app.last_lines
        screen.source.readings.append(Reading(GATEWAY, last, "", 30 * SECOND, True))
        screen.app.tick()
        assert screen.app.last_lines is drawn  # taken in, not drawn yet
        assert not screen.source.readings
        screen.clock.now += PACES[view] * SECOND // 4
        screen.app.tick()
        assert screen.app.last_lines is not drawn
        drawn = screen.app.last_lines
        await screen.press("j")
        assert screen.app.last_lines is not drawn


def test_the_pace_of_costly_views_follows_the_rate_that_was_asked_for() -> None:
    desk = Desk(model_after(1)[0])
    paces = {
        hertz: [Top(desk, None, hertz).pace(view) * hertz / SECOND for view in PACES] for hertz in (1.0, 4.0, 20.0)
    }
    for hertz in (4.0, 20.0):
        for ticks, pace in zip(PACES.values(), paces[hertz], strict=True):
            assert ticks - 1 < pace < ticks
    assert max(paces[1.0]) < 1  # with every tick
    assert Top(desk, None, 4.0).pace("events") == 0


@pytest.mark.parametrize("content", [b"tables: [", b"theme: 7\n", b"\xff\xfe", b"x" * 70_000])
def test_a_broken_file_of_choices_is_told_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "top.yaml"
    file.write_bytes(content)
    choices, told = read_choices(file)
    assert choices.tables == {}
    assert str(file) in told
    assert file.read_bytes() == content


async def test_freeze_stands_while_collecting_goes_on() -> None:
    async with showing() as screen:
        engine, market = Engine(), Market()
        await screen.press("2", "f")
        assert "FROZEN" in screen.lines[0]
        frozen = screen.lines[2:-1]
        for second in range(1, 34):
            await screen.feed(
                Reading(GATEWAY, engine.document(BEGIN + second * SECOND), "", second * SECOND, True),
                Reading(MARKET, market.document(BEGIN + second * SECOND), "", second * SECOND, True),
            )
        screen.clock.now = 50 * SECOND
        screen.app.tick()
        assert screen.lines[2:-1] == frozen
        await screen.press("f")
        assert "FROZEN" not in screen.lines[0]
        assert screen.lines[2:-1] != frozen
        assert "14:13:53" in screen.lines[0]


async def test_pause_asks_no_more_and_reset_counts_anew() -> None:
    async with showing() as screen:
        await screen.press("p")
        assert screen.source.paused
        assert "PAUSED" in screen.lines[0]
        await screen.press("space")
        assert not screen.source.paused
        await screen.press("2", "r")
        assert [line.split()[-1] for line in screen.lines[4:8]] == ["–"] * 4
        assert "counted from here on" in screen.lines[-1]


async def test_what_top_is_doing_is_told_however_much_there_is_to_say_of_the_ports() -> None:
    async with showing((80, 24)) as screen:
        screen.desk.recording = "a-rather-long-name-of-a-recording.top"
        assert "● REC" in await screen.press("p", "f")
        for url in (GATEWAY, MARKET):
            await screen.feed(Reading(url, None, "does not take connections within 2 s", 30 * SECOND, False))
        await screen.press("f", "f")
        first = screen.lines[0]
        assert all(part in first for part in ("● REC", "FROZEN PAUSED", "engine lo", "market lo"))
        assert "UTC" not in first
        screen.desk.recording = ""
        await screen.press("f", "p")
        assert "engine lost: does n" in screen.lines[0]
        assert "market lost: does n" in screen.lines[0]


async def test_stale_data_and_lost_connections_are_told_and_come_back() -> None:
    async with showing((120, 40)) as screen:
        screen.clock.now = 36 * SECOND
        screen.app.tick()
        assert "engine 6 s old" in screen.lines[0]
        row = screen.app.last_lines[3]
        assert all(span.role in ("dim", "cursor") for span in row if span.text.strip())
        text = await screen.feed(Reading(GATEWAY, None, "connection refused", 37 * SECOND, False))
        assert "lost: connection refused" in text.splitlines()[0]
        engine = Engine(started=BEGIN + 38 * SECOND, pid=4999)
        await screen.feed(Reading(GATEWAY, engine.document(BEGIN + 39 * SECOND), "", 39 * SECOND, True))
        screen.clock.now = 39 * SECOND
        await screen.press("8")
        assert "engine has restarted (process 4999)" in screen.text
        assert "connection lost: connection refused" in screen.text
        assert "lost" not in screen.lines[0]


async def test_a_baseline_shows_before_and_after() -> None:
    async with showing((140, 40)) as screen:
        await screen.press("b")
        assert "was" in screen.lines[2]
        engine = Engine(started=BEGIN, per_second=900)
        document = engine.document(BEGIN + 31 * SECOND)
        text = await screen.feed(Reading(GATEWAY, document, "", 31 * SECOND, True))
        orders = next(line for line in text.splitlines() if "max_orders_per_sec" in line)
        assert orders.split()[-8:][0] != ""
        assert "+125.0 %" in orders
        await screen.press("2")
        assert "p99 was" in screen.lines[3]
        await screen.press("b")
        assert "p99 was" not in screen.lines[3]


async def test_help_and_palette_open_and_close() -> None:
    async with showing() as screen:
        await screen.press("question_mark")
        assert len(screen.app.screen_stack) == 2
        assert "regular expression" in "".join(shown_text(screen.app.export_screenshot()))
        await screen.press("x")
        assert len(screen.app.screen_stack) == 1
        await screen.press("ctrl+p", *"show book")
        await screen.until(lambda: screen.app.screen.query_one(CommandList).option_count == 1)
        await screen.press("enter")
        await screen.until(lambda: screen.desk.view.name == "book")


@pytest.mark.parametrize("theme", ["textual-light", "nord", "ansi-dark", "ansi-light"])
async def test_themes_change_colours_and_not_words(theme: str) -> None:
    async with showing() as screen:
        before, words = screen.app.role_styles, screen.lines
        screen.app.theme = theme
        await screen.settle()
        assert screen.app.role_styles != before
        assert screen.lines == words
        if theme.startswith("ansi"):
            assert all(
                style.color is None or style.color.number is None or style.color.number < 16
                for style in screen.app.role_styles.values()
            )


@pytest.mark.parametrize("size", [(80, 24), (61, 13), (200, 60), (40, 10), (60, 12), (1, 1)])
async def test_any_size_is_filled_and_not_overrun(size: tuple[int, int]) -> None:
    async with showing(size) as screen:
        for view in VIEWS:
            screen.desk.show(view.name)
            screen.app.tick()
            screen.app.draw()
            assert len(screen.lines) == size[1]
            assert size[0] < 60 or max(map(len, screen.lines)) <= size[0]
        await screen.resize(100, 30)
        assert len(screen.lines) == 30


async def test_plain_terminals_get_ascii_bars() -> None:
    desk = Desk(model_after(30)[0], ascii_only=True)
    async with showing(desk=desk) as screen:
        for view in ("overview", "latency", "history"):
            screen.desk.show(view)
            screen.app.draw()
            assert not re.search("[▁-█⠀-⣿]", screen.text)


async def test_several_stacks_are_shown_one_at_a_time() -> None:
    other = Watched("10.0.0.7:8000", ("http://10.0.0.7:8000",))
    model = model_after(30, (STACK, other))[0]
    async with showing(desk=Desk(model)) as screen:
        assert "127.0.0.1:8000,8001 BREACH" in screen.lines[2]
        text = await screen.feed(
            Reading(other.urls[0], None, "does not take connections within 2 s", 31 * SECOND, False)
        )
        assert "10.0.0.7:8000 lost" in text
        await screen.press("]")
        assert "lost: does not take connections" in screen.lines[0]
        await screen.press("[")
        assert "engine" in screen.lines[0]


def record(path: Path, seconds: int = 120) -> None:
    writer, engine, market = Writer(path, (STACK,)), Engine(per_second=50), Market(sessions=3)
    for second in range(1, seconds + 1):
        for url, process in ((GATEWAY, engine), (MARKET, market)):
            document = process.document(BEGIN + second * SECOND)
            writer.add(Reading(url, document, "", 0, True), document.time)
    writer.close()


async def test_a_recording_plays_stops_scrubs_and_changes_its_speed(tmp_path: Path) -> None:
    record(tmp_path / "a.top")
    replay = Replay(Recording(tmp_path / "a.top"))
    clock = Clock(0)
    app = Top(Desk(Model(()), replay=replay), None, 4.0, clock=clock)
    async with running(app, (100, 30), clock=clock) as screen:
        app.tick()
        clock.now = 20 * SECOND
        app.tick()
        assert replay.at == BEGIN + 21 * SECOND
        assert "REPLAY ▶ 20 s of 1 min 59 s x1" in screen.lines[0]
        assert "14:13:41" in screen.lines[0]
        await screen.press("left")
        assert "REPLAY ‖ 19 s" in screen.lines[0]
        await screen.press("shift+right")
        assert "REPLAY ‖ 49 s" in screen.lines[0]
        await screen.press("shift+left", "shift+left", "shift+left")
        assert "REPLAY ‖ 0 s" in screen.lines[0]
        await screen.press("greater_than_sign", "space")
        app.tick()
        clock.now += 5 * SECOND
        app.tick()
        assert "REPLAY ▶ 10 s of 1 min 59 s x2" in screen.lines[0]
    replay.recording.close()


@contextlib.contextmanager
def endpoint(answer: bytes | None, piece: int = 1 << 20, wait: float = 0.0) -> Iterator[str]:
    """Listen on a port and say ``answer`` to everybody (None: nothing at all), so many bytes at a time."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.recv(4096)
            for begin in range(0, len(answer or b""), piece):
                connection.sendall((answer or b"")[begin : begin + piece])
                time.sleep(wait)
            if answer is not None:
                connection.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                taken.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in taken:
            connection.close()


GARBAGE = {
    "silent": (None, 1 << 20, 0.0),
    "no HTTP": (b"\x00\xff\x16\x03garbage\r\n\r\n" * 99, 1 << 20, 0.0),
    "a byte now and then": (b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + b"x" * 90_000, 1, 0.05),
    "no telemetry": (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x81\xa1a\x01", 1 << 20, 0.0),
    "closes at once": (b"", 1 << 20, 0.0),
}


async def test_endpoints_of_any_kind_leave_the_others_and_the_screen_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampler, "PATIENCE", 0.3)
    async with contextlib.AsyncExitStack() as around:
        urls = [around.enter_context(endpoint(*kind)) for kind in GARBAGE.values()]
        urls.append(f"http://127.0.0.1:{free_port()}")  # nobody listens
        stacks = tuple(Watched(f"s{number}", (url,)) for number, url in enumerate(urls))
        app = Top(Desk(Model(stacks)), sampler.Sampler(urls, "", 20.0), 20.0)
        async with running(app, (140, 30)) as screen:
            await screen.until(lambda: all(source.error for source in app.desk.model.sources.values()))
            for number in range(len(urls)):
                app.desk.show_stack(number)
                await screen.press("2", "j", "1")
                assert "lost: " in screen.lines[0]
            await screen.press("6")
            await screen.until(lambda: "no gateway among the ports" in screen.text)


def test_mistakes_are_one_line_and_exit_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = f"http://127.0.0.1:{free_port()}"
    for arguments, told in (
        ((), "top needs a terminal"),
        (("ftp://a",), "is no address"),
        (("--once", "--json"), "give one of them"),
        (("--replay", str(tmp_path / "none")), "cannot be read"),
        (("--replay", __file__), "is no recording"),
        (("--replay", __file__, nothing), "plays a file"),
        (("--baseline", __file__, "--once"), "is no recording"),
    ):
        assert cli.run(["top", *arguments]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert told in err
        assert err.count("\n") == 1
    assert cli.run(["top", "--once", "--seconds", "0.1", nothing]) == 1
    assert "lost: " in capsys.readouterr().out
    assert cli.run(["top", "--csv", "--seconds", "0.1", nothing]) == 1
    assert capsys.readouterr().out.count("\n") == 1


async def test_what_a_server_does_not_tell_is_not_shown() -> None:
    model, _ = model_after(30)
    source = model.sources[GATEWAY]
    assert source.document is not None
    ledger = Server(role="ledger", address="/tmp/s", up=True, told=False, latency_threshold=0)
    source.document = msgspec.structs.replace(source.document, servers=(ledger,))
    async with showing(size=(120, 40), desk=Desk(model)) as screen:
        await screen.press("7")
        assert "refuses INFO" in screen.text
        assert "0 B" not in screen.text
        assert "latency-monitor-threshold is 0" in screen.text
