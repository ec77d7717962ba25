"""A connection to a server: every call ends in time, and a server that cannot be asked is one plain reason."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from redis.connection import AbstractConnection

CONNECT_SECONDS = 2.0
CALL_SECONDS = 5.0
AWAY_SECONDS = 30.0
"""How long a server that did not answer is not asked again: a plan has many questions to a dead one."""

ANSWER_BYTES = 16 << 20
"""Most that an answer may take: the list of a cluster's nodes is the longest, with some hundred bytes for each."""

NOT_REDIS = "does not answer like a Redis server"

T = TypeVar("T")


class NoAnswerError(Exception):
    """The server cannot be asked; `str()` is why, in one clause."""


class DeniedError(Exception):
    """The server answers, and does not let us; `str()` is why, in one clause."""


class Link:
    """One connection, made at the first call and made again after a loss."""

    def __init__(self, options: Mapping[str, Any] | None, login_hint: str) -> None:
        """Take what `redis.connection.parse_url` gives; None: the address is not known.

        ``login_hint`` says how to give a password where the server asks for one.
        """
        self._options = options
        self._login_hint = login_hint
        self._connection: AbstractConnection | None = None
        self._away_until = 0.0
        self._why_away = ""

    def call(self, *words: str) -> Any:
        """Send one command and give its answer, within `CONNECT_SECONDS` and `CALL_SECONDS`.

        Raises:
            NoAnswerError: the server is away, hangs, refuses the login or talks something else.
            DeniedError: it does not do that, or not for this user.
        """
        from redis.exceptions import ResponseError

        try:
            return self._call(words)
        except ResponseError as error:
            raise DeniedError(f"refuses {_name(words)}: {clause(str(error)) or 'without a reason'}") from None

    def refusal(self, *words: str) -> str:
        """Give the error that the server answers to a command, whole; empty where it does as told.

        Raises:
            NoAnswerError, DeniedError: as `call` does.
        """
        from redis.exceptions import ResponseError

        try:
            self._call(words)
        except ResponseError as error:
            return str(error) or "without a reason"
        return ""

    def _call(self, words: Sequence[str]) -> Any:
        from redis.exceptions import AuthenticationError, BusyLoadingError, NoPermissionError, ResponseError

        if self._away_until > time.monotonic():
            raise NoAnswerError(self._why_away)
        try:
            return _within(CONNECT_SECONDS + CALL_SECONDS, lambda: self._exchange(words))
        except AuthenticationError as error:
            if "required" in str(error).lower():
                raise self.lost(f"asks for a password: {self._login_hint}") from None
            raise self.lost("refuses user or password of its URL") from None
        except BusyLoadingError:
            raise self.lost("is still loading its data") from None
        except NoPermissionError:
            raise DeniedError(f"does not let the user of its URL run {_name(words)}") from None
        except ResponseError as error:
            if "unknown command" in str(error).lower():
                raise DeniedError(f"has {_name(words)} renamed or switched off") from None
            raise
        except NoAnswerError as error:
            raise self.lost(str(error)) from None
        except Exception as error:  # noqa: BLE001  whatever the client makes of what is not Redis
            raise self.lost(_plain(error)) from None

    def lost(self, reason: str) -> NoAnswerError:
        """Give the error to raise where there is no going on with this server for now."""
        self._away_until, self._why_away = time.monotonic() + AWAY_SECONDS, reason
        self.close()
        return NoAnswerError(reason)

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]
            self._connection = None

    def _exchange(self, words: Sequence[str]) -> Any:
        from redis.exceptions import AuthenticationError
        from redis.exceptions import ConnectionError as RedisConnectionError

        if self._connection is not None:
            try:
                return self._ask(self._connection, words)
            except AuthenticationError:
                raise
            except RedisConnectionError:
                pass  # the server has ended it since, or was restarted; all that is asked here may be asked twice
        self._connection = self._connect()
        return self._ask(self._connection, words)

    @staticmethod
    def _ask(connection: AbstractConnection, words: Sequence[str]) -> Any:
        connection.send_command(*words)  # type: ignore[no-untyped-call]
        return connection.read_response()

    def _connect(self) -> AbstractConnection:
        from redis._parsers import _RESP2Parser
        from redis.backoff import NoBackoff
        from redis.connection import Connection
        from redis.retry import Retry

        if self._options is None:
            raise NoAnswerError("has no address that its cluster knows")
        options = {key: value for key, value in self._options.items() if key != "connection_class"}
        options |= {
            "socket_timeout": CALL_SECONDS, "socket_connect_timeout": CONNECT_SECONDS, "protocol": 2,
            "retry": Retry(NoBackoff(), 0), "decode_responses": True, "encoding_errors": "replace",
            "driver_info": None,
            # hiredis makes room for as many elements as an answer announces, the plain one for those that come.
            "parser_class": _RESP2Parser,
        }  # fmt: skip
        kind = self._options.get("connection_class", Connection)

        class Metered(kind):  # type: ignore[misc, valid-type]
            def _connect(self) -> _Meter:
                return _Meter(super()._connect())

        connection: AbstractConnection = Metered(**options)
        return connection


class _Meter:
    """A socket that gives `ANSWER_BYTES` at most behind what was sent: the client keeps all that it is given."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self._left = ANSWER_BYTES

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def sendall(self, data: bytes) -> None:
        self._left = ANSWER_BYTES
        self._plain.sendall(data)

    def recv(self, size: int) -> bytes:
        data: bytes = self._plain.recv(size)
        self._take(len(data))
        return data

    def recv_into(self, buffer: Any) -> int:
        size: int = self._plain.recv_into(buffer)
        self._take(size)
        return size

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise NoAnswerError(f"{NOT_REDIS}: its answer has no end")


def _name(words: Sequence[str]) -> str:
    return " ".join(words[:2]) if words[0] in ("CONFIG", "CLUSTER") else words[0]


def clause(text: str) -> str:
    """Give the first line of an error, without the frame that CONFIG SET puts around it."""
    line = (text.splitlines() or [""])[0][:200].strip()
    head, _, reason = line.partition("') - ")
    return reason if head.startswith("CONFIG SET failed") and reason else line


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Give what ``call`` gives, or raise NoAnswerError in time.

    The client's own limits do not cover the look-up of a name, nor an answer that comes byte by byte.
    """
    answers: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            answers.append(call())
        except Exception as error:  # noqa: BLE001  raised below
            errors.append(error)

    thread = threading.Thread(target=run, name="tvops-redis-call", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise NoAnswerError(f"does not answer within {seconds:.0f} s")
    return answers[0]


def _plain(error: BaseException) -> str:
    """Say in one clause what kept the client from an answer."""
    from redis.exceptions import TimeoutError as RedisTimeoutError

    link: BaseException | None = error
    for _ in range(8):
        if isinstance(link, RedisTimeoutError | TimeoutError):
            return f"does not answer within {CALL_SECONDS:.0f} s"
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"shows a certificate that is not trusted: {link.verify_message}"
        if isinstance(link, ssl.SSLError):
            return f"does not talk TLS with us: {(link.reason or 'no reason').lower().replace('_', ' ')}"
        if isinstance(link, OSError) and link.strerror:
            return f"cannot be reached: {link.strerror.lower()}"
        link = link.__cause__ or link.__context__ if link else None
    text = clause(str(error))
    if "closed" in text.lower():
        return "closes the connection"
    return f"{NOT_REDIS}: {text}" if text else NOT_REDIS
