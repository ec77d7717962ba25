"""Options of our listeners, of the connections that they accept, and of our connections to the servers.

On Linux an accepted connection has the options of its listener, so that they cost nothing per connection; those
that it does not inherit (`Option.inherited`) are set on each. What is reported was read from an accepted or
connected socket.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Container, Mapping
from typing import NamedTuple

import msgspec

from tvops.engine.stack_tuning import Effect, EffectState, outcome

_TCP, _SOCKET = socket.IPPROTO_TCP, socket.SOL_SOCKET
_NAME_BYTES = 16  # TCP_CA_NAME_MAX


class Option(NamedTuple):
    """One socket option. Values are canonical: decimal numbers, or a word."""

    level: int
    number: int  # numbers that Python does not name are those of asm-generic/socket.h and linux/tcp.h
    word: bool = False
    buffer: bool = False  # the kernel keeps twice of what is asked for, and shows that
    inherited: bool = True
    needs: str = ""


OPTIONS = {
    "TCP_NODELAY": Option(_TCP, socket.TCP_NODELAY),
    "TCP_QUICKACK": Option(_TCP, socket.TCP_QUICKACK, inherited=False),
    "TCP_USER_TIMEOUT": Option(_TCP, socket.TCP_USER_TIMEOUT),  # ms
    "TCP_NOTSENT_LOWAT": Option(_TCP, socket.TCP_NOTSENT_LOWAT),  # bytes
    "TCP_THIN_LINEAR_TIMEOUTS": Option(_TCP, 16),
    "TCP_CONGESTION": Option(_TCP, socket.TCP_CONGESTION, word=True, needs="CAP_NET_ADMIN"),
    "TCP_KEEPIDLE": Option(_TCP, socket.TCP_KEEPIDLE),  # s
    "TCP_KEEPINTVL": Option(_TCP, socket.TCP_KEEPINTVL),  # s
    "TCP_KEEPCNT": Option(_TCP, socket.TCP_KEEPCNT),
    "SO_KEEPALIVE": Option(_SOCKET, socket.SO_KEEPALIVE),
    "SO_RCVBUF": Option(_SOCKET, socket.SO_RCVBUF, buffer=True),  # bytes
    "SO_SNDBUF": Option(_SOCKET, socket.SO_SNDBUF, buffer=True),  # bytes
    "SO_BUSY_POLL": Option(_SOCKET, 46, needs="CAP_NET_ADMIN"),  # us
    "SO_PREFER_BUSY_POLL": Option(_SOCKET, 69, needs="CAP_NET_ADMIN"),
    "SO_TIMESTAMPNS": Option(_SOCKET, 35),
    "IP_TOS": Option(socket.IPPROTO_IP, socket.IP_TOS),
    "SO_PRIORITY": Option(
        _SOCKET, socket.SO_PRIORITY, inherited=False, needs="CAP_NET_ADMIN"
    ),  # IP_TOS sets it too
}
"""By name, in the order in which they are set."""

DEFAULTS: dict[str, dict[str, str]] = {
    "gateway": {},
    # left to itself, the kernel holds up to tcp_wmem (4 MB and more) for a client that does not read
    "stream": {"SO_SNDBUF": str(128 * 1024)},
    "redis": {"SO_KEEPALIVE": "1", "TCP_KEEPIDLE": "30", "TCP_KEEPINTVL": "10", "TCP_KEEPCNT": "3"},
}
"""What each has where the profile says nothing."""

_CEILINGS = {"SO_RCVBUF": "net.core.rmem_max", "SO_SNDBUF": "net.core.wmem_max"}
_EVERY_READ = "does not stay on: it would have to be set again after every read"
_ALWAYS_ON = "the event loop always switches it on"


class SocketOptions:
    """The options of one of the `stack_tuning.SOCKETS`: the profile's over the defaults."""

    def __init__(self, target: str, wishes: Mapping[str, str] | None = None) -> None:
        self.target = target
        self.wanted = DEFAULTS.get(target, {}) | dict(wishes or {})
        self._asked = dict(wishes or {})
        self._each = [name for name in self.wanted if name in OPTIONS and not OPTIONS[name].inherited]

    def prepare(self, new: socket.socket) -> dict[str, OSError]:
        """Set everything on a listener that does not listen yet, or on our end of a connection.

        Returns:
            What was refused.
        """
        return self._set(new, self.wanted)

    def adopt(self, accepted: socket.socket) -> None:
        """Set on an accepted connection what it did not get from its listener."""
        if self._each:
            self._set(accepted, self._each)

    def try_out(self, host: str) -> list[Effect]:
        """Tell what connections to a listener with these options have, by making one on loopback."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        try:
            with socket.socket(family) as listener:
                refused = self.prepare(listener)
                listener.bind((loopback, 0))
                listener.listen(1)
                listener.settimeout(1)
                with socket.create_connection(listener.getsockname()[:2], timeout=1):
                    accepted, _ = listener.accept()
                    with accepted:
                        self.adopt(accepted)
                        return self.effects(accepted, refused)
        except OSError as error:
            return [self._failed(name, "unsupported", f"could not be tried out: {error}") for name in self._asked]

    def effects(self, connection: socket.socket, refused: Mapping[str, OSError]) -> list[Effect]:
        """Tell what ``connection`` has, and what became of every wish."""
        effects = [self._effect(name, connection, refused.get(name)) for name in OPTIONS]
        return effects + [
            self._failed(name, "unsupported", "tvops serve has no such socket option")
            for name in self._asked
            if name not in OPTIONS
        ]

    def _set(self, to: socket.socket, names: Container[str]) -> dict[str, OSError]:
        refused = {}
        for name, option in OPTIONS.items():
            if name not in names or not _fits(name, to):
                continue
            value = self.wanted[name]
            try:
                to.setsockopt(*_place(option, to), value.encode() if option.word else int(value))
            except OSError as error:
                refused[name] = error
            except (
                TypeError,
                ValueError,
                OverflowError,
            ):  # TypeError: Python's word for a number that is too large
                refused[name] = OSError(errno.EINVAL, f"{value!r} is not a value for it")
        return refused

    def _effect(self, name: str, connection: socket.socket, error: OSError | None) -> Effect:
        if not _fits(name, connection):
            return self._failed(name, "left", "unix sockets have no such thing")
        got = _read(connection, OPTIONS[name])
        failed = self._failure(name, got, error) if name in self._asked else None
        effect = outcome("socket", name, self.target, self._asked, got, failed)
        if effect.state == "applied" and name in _CEILINGS and connection.family != socket.AF_UNIX:
            return msgspec.structs.replace(effect, reason="fixed: TCP does not adjust it by itself any more")
        return effect

    def _failure(self, name: str, got: str, error: OSError | None) -> Effect | None:
        wanted, option = self.wanted[name], OPTIONS[name]
        if name == "TCP_QUICKACK" and wanted == "1":
            return self._failed(name, "unsupported", _EVERY_READ)
        if name == "TCP_NODELAY" and wanted == "0":
            return self._failed(name, "unsupported", _ALWAYS_ON)
        if error is not None:
            denied = error.errno in (errno.EPERM, errno.EACCES)
            needs = f"; needs {option.needs}" if denied and option.needs else ""
            return self._failed(name, "denied" if denied else "unsupported", f"{error.strerror}{needs}")
        if got != wanted:
            ceiling = f"{_CEILINGS[name]} allows" if name in _CEILINGS else "the kernel left it at"
            return self._failed(name, "clamped", f"{ceiling} {got or 'nothing'}")
        return None

    def _failed(self, name: str, state: EffectState, reason: str) -> Effect:
        wanted = self.wanted.get(name, "")
        return Effect(kind="socket", name=name, target=self.target, wanted=wanted, state=state, reason=reason)


def unconnected_effects(target: str, wishes: Mapping[str, str], reason: str) -> list[Effect]:
    """Tell of wishes for sockets that there are none of."""
    return [
        Effect(kind="socket", name=name, target=target, wanted=value, state="unsupported", reason=reason)
        for name, value in wishes.items()
    ]


def default_value(name: str) -> str | None:
    """Give what an option is on a new TCP socket of this host; None where it cannot be read."""
    if name not in OPTIONS:
        return None
    with socket.socket() as fresh:
        return _read(fresh, OPTIONS[name]) or None


def _fits(name: str, connection: socket.socket) -> bool:
    return connection.family != socket.AF_UNIX or name == "SO_SNDBUF"


def _place(option: Option, connection: socket.socket) -> tuple[int, int]:
    if option.level == socket.IPPROTO_IP and connection.family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, socket.IPV6_TCLASS
    return option.level, option.number


def _read(connection: socket.socket, option: Option) -> str:
    try:
        if option.word:
            value = connection.getsockopt(*_place(option, connection), _NAME_BYTES)
            return value.split(b"\0")[0].decode()
        number = connection.getsockopt(*_place(option, connection))
    except OSError:
        return ""
    return str(number // 2 if option.buffer else number)
