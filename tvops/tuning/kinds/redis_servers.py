"""Which Redis and Valkey servers there are: the named ones, those of the settings, those of a running stack."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from tvops.errors import UsageError

if TYPE_CHECKING:
    from tvops.settings import Settings

STACK_ROLES = ("ledger", "market", "results")
"""The roles of the stack's own servers; any other name stands for a server that is not ours."""

_ROLE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_DEFAULT_PORT = 6379


class RedisServer(msgspec.Struct, frozen=True):
    """A server by its role and URL, or a node of the cluster to ask for the others."""

    role: str
    url: str  # may hold a password, so it is never shown: `address_of` is
    embedded: bool = False  # started by `tvops serve`, which writes its config file

    def __repr__(self) -> str:
        return f"RedisServer({self.role!r}, {address_of(self.url)!r})"


def find_servers(
    given: Sequence[str], settings: Settings, environment: Mapping[str, str] | None = None
) -> list[RedisServer]:
    """Give the servers that tuning reaches.

    A role is looked for among ``given`` first, then in the settings (``TVOPS_LEDGER_URL`` and so on, or the
    settings file), then among the sockets of a stack that runs in the data directory.

    Args:
        given: ``ROLE=URL`` of each --redis; ``ROLE`` alone takes the URL from `variable_of` that role. A role may
            be given several times.
        settings: for the URLs of the stack's roles and its data directory.
        environment: by default the process's own.

    Raises:
        UsageError: a role or URL is none, or a URL on the command line has a password.
    """
    environment = os.environ if environment is None else environment
    servers = list(dict.fromkeys(_given(text, environment) for text in given))
    named = {server.role for server in servers}
    urls = {"ledger": settings.ledger_url, "market": settings.market_url, "results": settings.results_url}
    for role in STACK_ROLES:
        if role in named:
            continue
        if urls[role]:
            servers.append(RedisServer(role, _checked(urls[role], f"{role}_url")))
        elif path := _running_socket(settings.data_path, role):
            servers.append(RedisServer(role, f"unix://{quote(str(path))}", embedded=True))
    return servers


def variable_of(role: str) -> str:
    """Give the environment variable that the URL of a role may come from."""
    name = role.upper().replace("-", "_")
    return f"TVOPS_{name}_URL" if role in STACK_ROLES else f"TVOPS_REDIS_{name}_URL"


def address_of(url: str) -> str:
    """Give a URL without user, password, database and query: what may be shown, and what a server is known by.

    It is a URL still, and the same one for the same server however its URL was written.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return f"unix://{parts.path}"
        host = parts.hostname or "localhost"
        return f"{parts.scheme}://{join_address(host, parts.port or _DEFAULT_PORT)}"
    except ValueError:
        return "(not shown)"


def join_address(host: str, port: int) -> str:
    """Give ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _given(text: str, environment: Mapping[str, str]) -> RedisServer:
    role, equals, url = text.partition("=")
    if not _ROLE.fullmatch(role):
        # What is no role may be a URL with a password: it is not shown.
        raise UsageError(
            "--redis: write ROLE=URL, e.g. ledger=redis://127.0.0.1:6379; a role is a-z, 0-9, - and _"
        )
    if not equals:
        url = environment.get(variable_of(role), "")
        if not url:
            raise UsageError(f"--redis {role}: write {role}=URL, or set {variable_of(role)}")
        return RedisServer(role, _checked(url, variable_of(role)))
    checked = _checked(url, f"--redis {role}")
    if _has_password(checked):
        raise UsageError(
            f"--redis {role}: everybody on this host can read a password on a command line; "
            f"set {variable_of(role)} to the URL and write --redis {role}"
        )
    return RedisServer(role, checked)


def _has_password(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.password) or any("password" in key for key in parse_qs(parts.query, keep_blank_values=True))


def _checked(url: str, origin: str) -> str:
    """Give a URL that a client takes, or raise UsageError without showing it."""
    from redis.connection import parse_url

    try:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("begins with none of redis://, rediss:// and unix://")
        if not (parts.path if parts.scheme == "unix" else parts.hostname):
            raise ValueError("names no " + ("socket" if parts.scheme == "unix" else "host"))
        if parts.scheme == "unix" and parts.hostname and "@" not in parts.netloc:
            raise ValueError("has to be unix:///PATH, with three slashes")
        parts.port  # noqa: B018  raises where it is no number
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        reason = str(error) if "Port" not in str(error) else "its port is no number from 0 to 65535"
        raise UsageError(f"{origin}: is no server URL: {reason}") from None
    return url


def _running_socket(data_path: Path, role: str) -> Path | None:
    """Give the socket of an embedded server that runs, or that this user may not ask."""
    folder = data_path.absolute() / "valkey" / role
    try:
        with (folder / "valkey.conf").open(encoding="utf-8", errors="replace") as file:
            config = file.read(1 << 16)
    except OSError:
        return None
    from tvops.engine.bus.server_config import socket_in

    path = socket_in(config)
    if path is None:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError:
            pass  # told when the plan asks it
    return path


def socket_path(url: str) -> str:
    """Give the path of a ``unix://`` URL."""
    return unquote(urlsplit(url).path)
