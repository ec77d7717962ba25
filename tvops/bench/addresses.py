"""Addresses of a stack, and plain HTTP requests to it outside of what is measured."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tvops.daemon_thread import within
from tvops.errors import ServerError, UsageError
from tvops.terminal import clean

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


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the API key is for the host that the user named."""

    def redirect_request(self, *about: object) -> None:
        """Give no further request, so that the answer is an error like others."""


_OPENER = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
"""Asks the host itself, as the load does: no proxy sees the API key, and none is in what is measured."""


def fetch(url: str, path: str, api_key: str = "", timeout: float = 5.0, body: bytes | None = None) -> bytes:
    """Give what ``url`` answers to a GET, or to a PUT of ``body`` (JSON), at most 16 MB, within ``timeout`` s.

    Raises:
        ServerError: it does not answer, or with an error or a redirection; one line that names the address.
    """
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if api_key:
        headers["X-API-Key"] = api_key
    method = "GET" if body is None else "PUT"
    request = urllib.request.Request(  # noqa: S310  (the scheme was checked above)
        f"{url.rstrip('/')}{path}", body, headers, method=method
    )
    try:
        # a resolver may hang for minutes, deaf to Ctrl-C
        return within(timeout, "request", _answer, request, timeout)
    except TimeoutError:
        raise ServerError(f"{url}{path}: does not answer within {timeout:g} s; is the stack up?") from None
    except urllib.error.HTTPError as error:
        with error:
            raise ServerError(f"{url}{path}: {_refusal(error)}") from None
    except http.client.HTTPException:
        raise ServerError(f"{url}{path}: does not speak HTTP; is that a stack?") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ServerError(f"{url}{path}: does not answer ({reason}); is the stack up?") from None


def _answer(request: urllib.request.Request, timeout: float) -> bytes:
    with _OPENER.open(request, timeout=timeout) as answer:
        return bytes(answer.read(MAX_BYTES))


def _refusal(error: urllib.error.HTTPError) -> str:
    if 300 <= error.code < 400:
        where = clean(error.headers.get("Location", ""))[:120]
        return f"redirects to {where!r}; give that address if it is the right one"
    return f"answers {error.code}" + ("; set TVOPS_API_KEY to an API key" if error.code == 401 else "")


def fetch_json(url: str, path: str, api_key: str = "", timeout: float = 5.0) -> Any:
    """Give the JSON that ``url`` answers; raise ServerError where it does not."""
    try:
        return msgspec.json.decode(fetch(url, path, api_key, timeout))
    except (msgspec.DecodeError, RecursionError):  # the latter: nested without end
        raise ServerError(f"{url}{path}: answers no JSON; is that a stack?") from None
