"""Who may send requests at all: against DNS rebinding, other web sites, and strangers."""

from __future__ import annotations

from urllib.parse import urlsplit

from tvops.engine.gateway.auth import DEFAULT_NAME, KeyRing, Principal
from tvops.engine.gateway.problems import refuse
from tvops.engine.records import FIRST_USER_ACCOUNT
from tvops.settings import Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
ANYBODY = Principal(FIRST_USER_ACCOUNT, DEFAULT_NAME, True)
"""Whom a request without a key acts for where none is needed."""

_CORS = (
    b"access-control-allow-origin: %b\r\n"
    b"access-control-expose-headers: idempotent-replayed, retry-after\r\n"
    b"vary: origin\r\n"
)

Headers = list[tuple[bytes, bytes]]


class Guard:
    """Checks the headers of a request."""

    def __init__(self, settings: Settings, keys: KeyRing) -> None:
        self._keys = keys
        self._required = settings.keys_required
        self._check_host = settings.loopback
        origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}
        names = (*LOOPBACK_NAMES, *((settings.host.lower(),) if settings.loopback else ()))
        own = {f"http://{name}:{settings.gateway_port}" for name in names} if settings.loopback else set()
        self._origins = {origin.encode() for origin in origins | own}
        self._hosts = {name.encode() for name in LOOPBACK_NAMES} | {
            (urlsplit(origin).hostname or "").encode() for origin in origins
        }

    def check_site(self, headers: Headers) -> bytes:
        """Refuse what comes from another web site; give the CORS headers that the answer needs.

        Raises:
            ProblemError: the Host or Origin header is not one of ours.
        """
        host = origin = None
        for name, value in headers:
            if name == b"host":
                if host is not None:
                    raise refuse("malformed_request", "there are two Host headers")
                host = value.lower()
            elif name == b"origin":
                origin = value.lower()
        if self._check_host and (host is None or _hostname(host) not in self._hosts):
            raise refuse("host_refused", "the Host header has to be localhost, 127.0.0.1 or [::1], with the port")
        if origin is None:
            return b""
        if origin not in self._origins and (host is None or origin.partition(b"://")[2] != host):
            shown = origin[:80].decode("ascii", "replace")
            raise refuse("origin_refused", f"origin {shown}: add it to allowed_origins to let its pages connect")
        return _CORS % origin

    def identify(self, headers: Headers) -> Principal | None:
        """Give whom the request acts for; None where it needs a key and has none.

        Raises:
            ProblemError: it has a key that is not valid.
        """
        for name, value in headers:
            if name == b"x-api-key":
                return self.by_key(value.decode("latin-1"))
            if name == b"authorization":
                scheme, _, key = value.decode("latin-1").partition(" ")
                if scheme.lower() != "bearer":
                    raise refuse("unauthorized", "Authorization has to be Bearer and an API key")
                return self.by_key(key.strip())
        return None if self._required else ANYBODY

    def by_key(self, key: str) -> Principal:
        """Give whom a key stands for.

        Raises:
            ProblemError: it is not valid.
        """
        principal = self._keys.find(key)
        if principal is None:
            raise refuse("unauthorized", "this API key is not valid")
        return principal


def _hostname(host: bytes) -> bytes:
    """Cut the port off a Host header."""
    if host.startswith(b"["):
        return host.partition(b"]")[0] + b"]"
    return host.partition(b":")[0]
