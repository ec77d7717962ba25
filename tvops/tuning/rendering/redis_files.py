"""CONFIG of the servers as files to include, one a role."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from tvops.tuning.kinds.redis_servers import STACK_ROLES
from tvops.tuning.model import Profile
from tvops.tuning.rendering.settings import Setting, comment_lines, header


def redis_file_of(role: str) -> str:
    """Give the path of the file of a role."""
    return f"/etc/tvops/redis-{role}.conf"


def redis_files(profile: Profile, settings: Sequence[Setting]) -> dict[str, str]:
    """Render a file for each role of the stack, and for each other role that the profile names."""
    named = [s.place.name for s in settings if s.place.name.replace("-", "").replace("_", "").isalnum()]
    files = {}
    for role in dict.fromkeys((*STACK_ROLES, *named)):
        if chosen := _of_role(role, settings):
            files[redis_file_of(role)] = _file(profile, role, chosen)
    return files


def _of_role(role: str, settings: Sequence[Setting]) -> list[Setting]:
    """Give the most particular setting of each key, as a plan does."""
    best: dict[str, Setting] = {}
    for setting in settings:
        if setting.place.name and not fnmatchcase(role, setting.place.name):
            continue
        held = best.get(setting.knob.id)
        if held is None or _rank(setting, role) >= _rank(held, role):
            best[setting.knob.id] = setting
    return list(best.values())


def _rank(setting: Setting, role: str) -> tuple[bool, bool]:
    return setting.place.name == role, bool(setting.place.name)


def _file(profile: Profile, role: str, settings: Sequence[Setting]) -> str:
    lines = header(profile, f"the configuration of the {role} server.")
    lines[-1:] = [
        f"# To use it, put this line at the end of the server's own file: include {redis_file_of(role)}",
        "",
    ]
    for setting in settings:
        lines += [*comment_lines(setting, profile.facts), f"{setting.knob.where} {_value(setting.value)}", ""]
    return "\n".join(lines[:-1]) + "\n"


def _value(value: str) -> str:
    return value or '""'
