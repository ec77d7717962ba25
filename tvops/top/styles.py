"""What roles look like in a theme. Colour says a state and nothing else; the words say it as well."""

from __future__ import annotations

from rich.style import Style
from textual.color import Color, ColorParseError
from textual.theme import Theme


def styles_of(theme: Theme, variables: dict[str, str]) -> dict[str, Style]:
    """Give the style of each role."""

    def colour(name: str, ordinary: str) -> str | None:
        try:
            found = Color.parse(variables.get(name) or ordinary)
        except ColorParseError:
            return None
        if found.ansi is not None:
            return found.rich_color.name
        return (found if theme.dark or name == "foreground" else found.darken(0.18)).hex6  # readable on light

    plain = theme.ansi
    text = None if plain else colour("foreground", "#e0e0e0")
    good, worse, bad = colour("success", "green"), colour("warning", "yellow"), colour("error", "red")
    faded = Style(dim=True) if plain else Style(color=_between(variables, 0.55))
    calm = Style() if plain else Style(color=_between(variables, 0.7))
    chosen = Style(reverse=True) if plain else Style(color=text, bgcolor=_between(variables, 0.2), bold=True)
    return {
        "": Style(color=text),
        "dim": faded,
        "head": faded,
        "title": Style(color=text, bold=True),
        "brand": Style(color=text, bold=True),
        "tab": chosen,
        "mode": Style(reverse=True, bold=True),
        "key": Style(color=text, bold=True),
        "message": Style(color=text, bold=True),
        "cursor": Style(color=text, bold=True),
        "bar": calm,
        "before": faded,
        "ok": Style(color=good),
        "warn": Style(color=worse, bold=True),
        "breach": Style(color=bad, bold=True),
    }


def _between(variables: dict[str, str], share: float) -> str:
    """Give a colour between background (0) and text (1)."""
    try:
        text, ground = Color.parse(variables["foreground"]), Color.parse(variables["background"])
    except (KeyError, ColorParseError):
        return "#808080"
    return ground.blend(text, share).hex6
