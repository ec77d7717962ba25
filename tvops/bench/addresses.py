"""Addresses of a stack, and plain HTTP requests to it outside of what is measured."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tvops.errors import ServerError, UsageError

MAX_BYTES = 1 << 24


class Address(msgspec.Struct, frozen=True):
    """A host and a port."""

    scheme: str  # http, https
    host: str
    port: int

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.scheme == "https"

    @property
    def netloc(self) -> str:
        """``host:port``, as in URLs."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def websocket(self) -> str:
        """The URL of the WebSocket sessions."""
        return f"{'wss' if self.secure else 'ws'}://{self.netloc}/ws"


def address_of(url: str) -> Address:
    """Read ``http://host:port``; raise UsageError where it is something else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"{url[:200]!r} is no address of a stack; it looks like http://127.0.0.1:8000") from None
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise UsageError(f"{url[:200]!r} is no address of a stack; it looks like http://127.0.0.1:8000")
    if parts.username or parts.password:
        raise UsageError("an address takes no user or password; an API key comes from $TVOPS_API_KEY")
    return Address(scheme, parts.hostname, port or (443 if scheme == "https" else 80))


def fetch(url: str, path: str, api_key: str = "", timeout: float = 5.0, accept: str = "application/json") -> bytes:
    """Give what ``url`` answers to a GET, at most 16 MB.

    Raises:
        ServerError: it does not answer, or with an error; one line that names the address.
    """
    headers = {"Accept": accept} | ({"X-API-Key": api_key} if api_key else {})
    request = urllib.request.Request(f"{url.rstrip('/')}{path}", headers=headers)  # noqa: S310  (checked above)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            return bytes(answer.read(MAX_BYTES))
    except urllib.error.HTTPError as error:
        hint = "; set TVOPS_API_KEY to an API key" if error.code == 401 else ""
        raise ServerError(f"{url}{path}: answers {error.code}{hint}") from None
    except http.client.HTTPException:
        raise ServerError(f"{url}{path}: does not speak HTTP; is that a stack?") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ServerError(f"{url}{path}: does not answer ({reason}); is the stack up?") from None


def fetch_json(url: str, path: str, api_key: str = "", timeout: float = 5.0) -> Any:
    """Give the JSON that ``url`` answers; raise ServerError where it does not."""
    try:
        return msgspec.json.decode(fetch(url, path, api_key, timeout))
    except msgspec.DecodeError:
        raise ServerError(f"{url}{path}: answers no JSON; is that a stack?") from None
