"""The upgrade request (RFC 6455, 4.2.1) of a session of the gateway port."""

from __future__ import annotations

import re

from tvops.engine.gateway.guard import Headers
from tvops.engine.gateway.problems import refuse

_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")  # 16 bytes in base64


def handshake(headers: Headers) -> bytes:
    """Write the upgrade request as picows reads it: browsers also send `Connection: keep-alive, Upgrade`.

    Raises:
        ProblemError: the headers are not those of a handshake.
    """
    wanted = (b"sec-websocket-key", b"sec-websocket-version")
    found = {name: value for name, value in headers if name in wanted}
    if not _KEY.fullmatch(found.get(wanted[0], b"")) or found.get(wanted[1]) != b"13":
        raise refuse("malformed_request", "the handshake needs a Sec-WebSocket-Key and Sec-WebSocket-Version: 13")
    if any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t"))
        for name, value in headers
    ):
        raise refuse("malformed_request", "the handshake has no body: frames follow its headers")
    lines = [b"GET /ws HTTP/1.1", b"Upgrade: websocket", b"Connection: Upgrade"]
    return b"\r\n".join([*lines, *(b"%b: %b" % item for item in found.items()), b"", b""])
