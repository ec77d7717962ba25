"""Puts together what every tuning command works with: the host, the catalogue, a resolved profile, the drivers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tvops.settings import load_settings
from tvops.tuning.catalogue import load_catalogue
from tvops.tuning.facts import read_facts
from tvops.tuning.history import refusals
from tvops.tuning.host import Host
from tvops.tuning.journal import StateDirectory, state_directory
from tvops.tuning.kinds.boot import BootDriver
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.kinds.nic import NicDriver
from tvops.tuning.kinds.redis import RedisDriver
from tvops.tuning.kinds.redis_facts import ServerFacts
from tvops.tuning.kinds.redis_servers import RedisServer, find_servers
from tvops.tuning.kinds.serve import ServeDriver
from tvops.tuning.model import Driver, Facts, Item, Kind, Knob, Profile
from tvops.tuning.plan import Limits, make_plan
from tvops.tuning.profiles import resolve_profile


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What a command acts on."""

    root: Path = Path("/")
    servers: tuple[str, ...] = ()  # ROLE=URL of --redis
    data_dir: str | None = None
    config: Path | None = None
    force: bool = False  # also restore what a server has outgrown


class Setup:
    """Host, catalogue and drivers of one command; `close` ends the drivers' connections."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self.host = Host(reach.root)
        self.catalogue: dict[str, Knob] = load_catalogue()
        self.facts: Facts = read_facts(self.host)
        self.drivers: dict[Kind, Driver] = {}
        self.servers: list[RedisServer] = []
        self.gateway_port = 0  # of the stack on this host
        self._redis: RedisDriver | None = None
        files = FileDriver(self.host, self.catalogue)
        self.drivers |= {"sysctl": files, "file": files, "boot": BootDriver(self.host)}
        if self.host.live:
            self._reach_beyond_files()

    def _reach_beyond_files(self) -> None:
        settings = load_settings({"data_dir": self.reach.data_dir}, file=self.reach.config)
        self.gateway_port = settings.gateway_port
        self.servers = find_servers(self.reach.servers, settings)
        self._redis = redis = RedisDriver(self.servers, self.facts, self.reach.force)
        serve = ServeDriver(settings.data_path)
        self.drivers |= {"nic": NicDriver(self.host), "redis": redis}
        self.drivers |= {"held": serve, "process": serve, "socket": serve}

    def resolve(self, name: str, assignments: Sequence[str] = ()) -> Profile:
        """Give a profile as it holds on this host; raise SettingsError or UsageError naming what is wrong."""
        return resolve_profile(name, self.facts, self.catalogue, assignments)

    def plan(self, profile: Profile, limits: Limits | None = None, retry: bool = False) -> list[Item]:
        """Give what would change; reads, writes nothing. What was refused since this boot counts as not supported.

        With ``retry`` it is to be tried again.
        """
        items = make_plan(profile, self.catalogue, self.drivers, limits)
        refused = {} if retry else refusals(StateDirectory(state_directory()), self.host)
        for item in items:
            reason = refused.get((item.knob, item.place.address, item.value))
            if reason and item.state == "pending":
                item.state, item.reason = "unsupported", reason
        return items

    def server_facts(self) -> list[ServerFacts]:
        """Ask every server how it is, each node of a cluster; never raises."""
        return self._redis.facts() if self._redis else []

    def close(self) -> None:
        """End the connections to servers."""
        if self._redis:
            self._redis.close()


@contextlib.contextmanager
def opened(reach: Reach) -> Iterator[Setup]:
    """Give a `Setup` that is closed at the end."""
    setup = Setup(reach)
    try:
        yield setup
    finally:
        setup.close()


def by_state(items: Sequence[Item]) -> Mapping[str, int]:
    """Count the items of a plan: outcome where there is one, else state."""
    counts: dict[str, int] = {}
    for item in items:
        key = item.outcome or item.state
        counts[key] = counts.get(key, 0) + 1
    return counts
