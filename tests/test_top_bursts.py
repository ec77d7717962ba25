"""Keys of `tvops top` that come faster than the screen changes, as a paste or a slow line sends them."""

from __future__ import annotations

import pytest
from textual.command import CommandList
from textual.events import Key

from tests.top_screen import Screen, showing
from tvops.top.help import Help
from tvops.top.palette import Palette


async def burst(screen: Screen, *keys: str) -> None:
    """Send keys as a terminal does: none waits for what the one before it does."""
    for key in keys:
        screen.app.post_message(Key(key, key if len(key) == 1 else None))
    for _ in range(5):  # the palette has timers too
        await screen.pilot.pause(0.02)
    await screen.settle()


async def open_palette(screen: Screen) -> CommandList:
    """Open the palette, and wait for what it offers."""
    await screen.press("colon")
    commands = screen.app.screen.query_one(CommandList)
    await screen.until(lambda: commands.option_count > 0)
    return commands


async def test_a_key_right_behind_the_one_that_closed_the_help_is_for_the_view() -> None:
    async with showing() as screen:
        await screen.press("?")
        assert isinstance(screen.app.screen, Help)
        await burst(screen, "x", "8", "x")
        assert len(screen.app.screen_stack) == 1
        assert screen.desk.view.name == "events"


@pytest.mark.parametrize("keys", [("?", "x", "x"), ("?", "?", "?"), ("question_mark", "escape", "escape")])
async def test_help_opened_and_closed_at_once_leaves_the_program_alive(keys: tuple[str, ...]) -> None:
    async with showing() as screen:
        await burst(screen, *keys)
        assert screen.app.is_running
        assert len(screen.app.screen_stack) <= 2


async def test_a_command_chosen_twice_at_once_is_done_once() -> None:
    async with showing() as screen:
        commands = await open_palette(screen)
        await burst(screen, *"Pause")
        await screen.until(lambda: commands.option_count == 1)
        await burst(screen, "enter", "enter", "enter")
        assert len(screen.app.screen_stack) == 1
        assert screen.desk.paused
        assert screen.source.paused


@pytest.mark.parametrize(
    "keys",
    [
        (":", "enter", "enter", "escape"),
        (":", "down", "down", "up", "end", "escape", "escape"),
        (":", "pagedown", "pageup", "ctrl+end", "escape"),
        (":", ":", "ctrl+p", "escape", "escape", "ctrl+p", "escape"),
        ("ctrl+p", "ctrl+p", "escape", "ctrl+p", ":", "escape"),
    ],
)
async def test_a_palette_opened_used_and_closed_at_once_leaves_the_program_alive(keys: tuple[str, ...]) -> None:
    async with showing() as screen:
        await burst(screen, *keys)
        await burst(screen, *keys)
        assert screen.app.is_running


async def test_keys_of_a_palette_too_small_to_show_a_line_do_nothing() -> None:
    async with showing() as screen:
        await open_palette(screen)
        await screen.resize(1, 1)
        await burst(screen, "pagedown", "pageup", "down", "up", "ctrl+end", "ctrl+home", "pagedown")
        assert isinstance(screen.app.screen, Palette)
        await screen.resize(80, 24)
        await burst(screen, "escape")
        assert len(screen.app.screen_stack) == 1


async def test_the_palette_of_themes_outlives_a_burst() -> None:
    async with showing() as screen:
        screen.app.search_themes()
        await screen.settle()
        assert isinstance(screen.app.screen, Palette)
        await burst(screen, "down", "enter", "enter", "escape", "escape")
        assert len(screen.app.screen_stack) == 1
