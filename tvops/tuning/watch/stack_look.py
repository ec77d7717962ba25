"""Reads again what a running stack has in force: attributes of its processes, its embedded servers, what it holds.

Options of sockets, and what else only a process itself can see, stay as it told at its start: nobody else can
change them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvops.engine.stack_tuning import Effect
from tvops.settings import Settings
from tvops.tuning.kinds.redis import part_of, split_key
from tvops.tuning.kinds.redis_link import DeniedError, NoAnswerError
from tvops.tuning.kinds.redis_nodes import node_of
from tvops.tuning.kinds.redis_servers import find_servers
from tvops.tuning.kinds.serve import still_held, value_now
from tvops.tuning.model import Knob
from tvops.tuning.values import normalise
from tvops.tuning.watch.sighting import Key, Sighting

_KINDS = ("process", "socket", "held", "redis")


class StackLook:
    """Looks at what the processes of a stack have told."""

    def __init__(self, catalogue: Mapping[str, Knob], settings: Settings) -> None:
        """Take the catalogue for the names of knobs, and the settings that the stack was started with."""
        self._knobs = {(knob.kind, knob.where): knob for knob in catalogue.values() if knob.kind in _KINDS}
        self._settings = settings

    def sightings(self, effects: Sequence[Effect]) -> list[Sighting]:
        """Read again what was asked for; of several processes at one place, one that is not as wanted counts."""
        asked = [effect for effect in effects if effect.wanted and effect.state != "left"]
        configurations = self._configurations([effect for effect in asked if effect.kind == "redis"])
        found: dict[Key, Sighting] = {}
        for effect in asked:
            sighting = self._seen(effect, configurations)
            if sighting.key not in found or found[sighting.key].met:
                found[sighting.key] = sighting
        return list(found.values())

    def _seen(self, effect: Effect, configurations: Mapping[str, dict[str, str] | None]) -> Sighting:
        knob = self._knobs.get((effect.kind, effect.name))
        applied, now, missed = effect.state == "applied", None, False
        if effect.kind == "process":
            now = value_now(effect)
        elif effect.kind == "held" and applied:
            now = effect.got if still_held(effect.pid) else "not held"
        elif effect.kind == "redis" and effect.target in configurations:
            configuration = configurations[effect.target]
            missed = configuration is None
            now = _value(configuration or {}, effect.name, knob)
        told = now is None and bool(effect.got)
        now = effect.got if told else now
        return Sighting(
            effect.kind, knob.id if knob else effect.name, effect.target, effect.wanted, now,
            met=now == effect.wanted, possible=applied, reason=effect.reason, before=applied, told=told,
            missed=missed,
        )  # fmt: skip

    def _configurations(self, effects: Sequence[Effect]) -> dict[str, dict[str, str] | None]:
        """Ask each embedded server for the keys of its effects; None of one that does not tell."""
        servers = find_servers((), self._settings, {}) if effects else []
        found: dict[str, dict[str, str] | None] = {}
        for server in servers:
            keys = dict.fromkeys(split_key(e.name)[0] for e in effects if e.target == server.role)
            if not server.embedded or not keys:
                continue
            node = node_of(server)
            try:
                found[server.role] = node.get_all(keys)
            except (NoAnswerError, DeniedError):
                found[server.role] = None
            finally:
                node.link.close()
        return found


def _value(configuration: Mapping[str, str], where: str, knob: Knob | None) -> str | None:
    """Give the canonical value of a key; None where the server does not know it."""
    key, part = split_key(where)
    raw = part_of(configuration.get(key), part)
    return None if raw is None else normalise(knob.type, raw) if knob else raw.strip()
