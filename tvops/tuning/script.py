"""A plan as a plain POSIX shell script, for hosts and people without tvops (`tvops tune --script`)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.model import Driver, ExitCode, Item, Kind, Knob, Profile
from tvops.tuning.plan import exit_code, hindrances
from tvops.tuning.values import parse_cpus

_HEAD = """\
#!/bin/sh
# Makes this host as the profile {profile} wants it, by plain commands: what this would do
#   tvops tune --profile {profile}
# Planned on kernel {release} with {cpus}. It counts for that host only, and for what it showed then:
# a setting that shows something else by now is left alone and reported.
#
# Nothing is journalled. What was changed is undone, newest first, when a required setting fails; at no other time.
# Exit codes: 0 all is as wanted; 4 something that is not required could not be changed, or is left out below;
# 6 something takes a restart or a reboot; 1 a required setting failed and everything was undone; 7 the same, but
# not everything could be undone.
# shellcheck disable=SC2016,SC2317,SC2329 # values are quoted to stay as they are; eval calls some functions
set -u
"""

_FUNCTIONS = """
undo='' missed=0 stuck=0

# What a file shows, in the one form in which values are compared.
words() { tr -s '[:space:]' ' ' <"$1" | sed 's/^ //; s/ $//'; }
choice() { sed 's/.*\\[\\([^]]*\\)\\].*/\\1/; s/[[:space:]]*$//; q' "$1"; }
mask() { tr -d ',[:space:]' <"$1" | sed 's/^0*\\(.\\)/\\1/'; }

put() { printf '%s\\n' "$1" >"$2"; }

# Changes one setting, reads it back and reports. What reads and what writes are commands; without one that reads,
# the exit code of the other has to do. Each runs in a shell of its own, which a missing password may end.
change() { # name, required or optional, what it shows before, and after, command that reads, writes, undoes
    now=$3
    [ -z "$5" ] || now=$(eval "$5" 2>/dev/null) || now='?'
    if [ "$now" = "$4" ]; then
        printf 'same     %s: %s\\n' "$1" "$4"
        return
    fi
    if [ "$now" != "$3" ]; then
        reason="shows $now by now, $3 when this was planned"
    elif ! (eval "$6") >/dev/null; then
        reason='was not taken'
    else
        now=$4
        [ -z "$5" ] || now=$(eval "$5" 2>/dev/null) || now='?'
        if [ "$now" = "$4" ]; then
            undo="($7) || stuck=1
$undo"
            printf 'changed  %s: %s -> %s\\n' "$1" "$3" "$4"
            return
        fi
        reason="reads back as $now"
        (eval "$7") >/dev/null || stuck=1
    fi
    printf 'failed   %s: %s -> %s: %s\\n' "$1" "$3" "$4" "$reason" >&2
    [ "$2" = optional ] || give_up
    missed=1
}

give_up() {
    printf 'undoing everything\\n' >&2
    eval "$undo" >/dev/null
    [ "$stuck" -eq 0 ] || { printf 'something could not be undone\\n' >&2; exit 7; }
    exit 1
}
"""

_WRITABLE = ("pending", "privilege")


def render_script(
    items: Sequence[Item], catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver], profile: Profile
) -> str:
    """Give the script that does what applying ``items`` would, in their order.

    Items that need a privilege which the caller lacks are in it: the script is for whoever has it. What no plain
    command can do, or must not be done, stands in it as a comment with the reason.
    """
    facts = profile.facts
    cpus = f"{len(facts.cpus)} CPU{'s' if len(facts.cpus) > 1 else ''}"
    # A path as the profile's name is quoted: the words are there to be copied.
    head = _HEAD.format(profile=shlex.quote(_line(profile.name)), release=_line(facts.release), cpus=cpus)
    if hindered := hindrances(items):
        return head + _refusal(hindered)
    concerned = [item for item in items if item.state not in ("met", "skipped")]
    calls = {item.id: _call(item, catalogue, drivers) for item in concerned if item.state in _WRITABLE}
    parts = [_part(item, calls.get(item.id, "")) for item in concerned]
    # What is changed cannot fail here; what is left out is known already.
    left = [item for item in concerned if not calls.get(item.id)]
    code = exit_code([item for item in left if item.state not in _WRITABLE], applied=True)
    if code == ExitCode.MET and left:
        code = ExitCode.UNSUPPORTED
    tail = f'\n[ "$stuck" -eq 0 ] || exit 7\n[ "$missed" -eq 0 ] || exit {code or 4}\nexit {code}\n'
    return head + (
        _FUNCTIONS + "".join(parts) + tail if any(calls.values()) else "".join(parts) + f"\nexit {code}\n"
    )


def _refusal(hindered: Sequence[Item]) -> str:
    lines = [
        f"printf '%s\\n' {shlex.quote(f'{_line(i.id)} is required: {_line(i.reason)}')} >&2" for i in hindered
    ]
    return (
        "\n# A required setting cannot be had on this host: nothing is changed.\n"
        + "\n".join(lines)
        + "\nexit 1\n"
    )


def _line(text: str) -> str:
    """Give text without line ends, so that it stays within its comment."""
    return " ".join(text.split())


def _part(item: Item, call: str) -> str:
    current = "?" if item.current is None else item.current
    about = _line(f"{item.id}: {current or '(none)'} -> {item.value or item.wanted}")
    if call:
        return f"\n# {about}\n# {_line(item.why)}\n{call}\n"
    reason = item.reason or "no plain command can change it and change it back; tvops tune can"
    return f"\n# left out: {about}: {item.state}: {_line(reason)}\n"


def _call(item: Item, catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver]) -> str:
    """Give the call of `change` for an item; empty where no plain commands can do and undo it."""
    knob, driver = catalogue[item.knob], drivers[item.kind]
    write = driver.shell(knob, item.place, item.value)
    undo = None if item.current is None else driver.shell(knob, item.place, item.current)
    if item.current is None or write is None or undo is None:
        return ""
    before, after = (_shown(knob, value) for value in (item.current, item.value))
    words = shlex.join([_line(item.id), "required" if item.required else "optional", before, after])
    commands = [_reader(item, knob, driver), _short(write), _short(undo)]
    return " \\\n    ".join([f"change {words}", *map(shlex.quote, commands)])


def _short(command: str) -> str:
    """Give the command that writes a file as a call of `put`, which needs no quotes within quotes."""
    words = shlex.split(command)
    if words[:2] == ["printf", "%s\\n"] and words[3:4] == [">"] and len(words) == 5:
        return shlex.join(["put", words[2], words[4]])
    return command


def _shown(knob: Knob, value: str) -> str:
    """Give a canonical value in the form in which the script reads it."""
    if knob.type == "cpumask":
        return format(sum(1 << cpu for cpu in parse_cpus(value)), "x")
    return value


def _reader(item: Item, knob: Knob, driver: Driver) -> str:
    """Give the command that shows a place's value; empty where there is none."""
    if not isinstance(driver, FileDriver):
        return ""
    form = {"choice": "choice", "cpumask": "mask"}.get(knob.type, "words")
    return f"{form} {shlex.quote(str(driver.host.path(item.place.address)))}"
