"""Knobs of the kernel's command line: read from what this boot was started with, never written."""

from __future__ import annotations

import re

from tvops.tuning.host import Host
from tvops.tuning.model import Knob, NotWrittenError, Place, State
from tvops.tuning.values import normalise

FLAG = "set"
"""The value of a parameter that stands there without one, such as `nosoftlockup`."""

_COMMAND_LINE = "/proc/cmdline"
_AT_BOOT = "the kernel reads its command line at boot only"


class BootDriver:
    """Reads the parameters that the kernel was started with."""

    def __init__(self, host: Host) -> None:
        """Take the host, or the tree that stands for it."""
        self._host = host

    def places(self, knob: Knob) -> list[Place]:
        """Give the command line; every parameter can be put there, also one that is not."""
        return [Place(_COMMAND_LINE)] if self._host.exists(_COMMAND_LINE) else []

    def read(self, knob: Knob, place: Place) -> State:
        """Tell the value of a parameter; an empty one where it is not set.

        Of a list of CPUs the flags in front of it (`managed_irq,domain,2-3`) do not count.
        """
        try:
            given = parse_command_line(self._host.read_text(place.address))
        except PermissionError:
            return State("denied", writable=False, reason="cannot be read by this user")
        except OSError as error:
            return State("absent", reason=(error.strerror or str(error)).lower())
        raw = given.get(_name(knob.where), "")
        value = re.sub(r"^([a-z]\w*,)+", "", raw) if knob.type == "cpulist" else raw
        return State("present", normalise(knob.type, value), raw, writable=False, reason=_AT_BOOT)

    def write(self, knob: Knob, place: Place, value: str) -> None:
        """Raise NotWrittenError, always: `tvops tune persist` renders the line and says what to do with it."""
        raise NotWrittenError(_AT_BOOT)

    def restore(self, knob: Knob, place: Place, before: State) -> None:
        """Raise NotWrittenError, always: nothing was changed."""
        raise NotWrittenError(_AT_BOOT)

    def objection(self, knob: Knob, place: Place, value: str) -> str:
        """Give nothing: nothing is written."""
        return ""

    def shell(self, knob: Knob, place: Place, value: str) -> str | None:
        """Give nothing: where a boot loader keeps its line differs from host to host."""
        return None


def parse_command_line(text: str) -> dict[str, str]:
    """Give the kernel's own parameters by name, with `_` for every `-` in it; of a repeated one the last counts.

    Double quotes hold a value with blanks together, as the kernel has it, around the value or the whole parameter.
    What follows `--` is for the first program.
    """
    given = {}
    for word in re.findall(r'(?:"[^"]*"?|[^\s"])+', text):
        plain = word.replace('"', "")
        if plain == "--":
            break
        name, equals, value = plain.partition("=")
        given[_name(name)] = value if equals else FLAG
    return given


def _name(parameter: str) -> str:
    return parameter.replace("-", "_")
