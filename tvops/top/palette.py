"""The command palette; keys may come before it is on the screen, or after it has gone."""

from __future__ import annotations

import contextlib

from textual import on
from textual.await_complete import AwaitComplete
from textual.command import CommandList, CommandPalette
from textual.message import Message
from textual.widgets import Input, OptionList


class Palette(CommandPalette):
    """Textual's palette; keys that came too early or too late do nothing, where Textual's raises."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Allow what keys do only while the palette is on the screen, with its list."""
        return self.is_current and bool(self.query(CommandList))

    def dismiss(self, result: None = None) -> AwaitComplete:
        """Go away, once."""
        return super().dismiss(result) if self.is_current else AwaitComplete()

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _choose_once(self, message: Message) -> None:
        if not self.is_current:
            message.prevent_default()

    def _action_command_list(self, action: str) -> None:
        with contextlib.suppress(KeyError):  # a list without a line on the screen has no pages
            super()._action_command_list(action)
