"""A session, as operators see it."""

from __future__ import annotations

from typing import Any

from tvops.engine.stream.sessions import Session
from tvops.engine.telemetry import document


def listed(session: Session, now: float) -> document.Session:
    """Give what telemetry tells of a session at monotonic time ``now``."""
    keys = session.hub.keys
    account = keys.account(session.key) if keys is not None and session.key is not None else None
    return document.Session(
        id=session.number,
        peer=session.peer,
        account="" if account is None else str(account),
        seconds=round(now - session.opened, 1),
        subscriptions=len(session.subscriptions),
        messages=session.messages_sent,
        unsent=session.unsent_bytes,
        conflations=session.strikes,
        slow=bool(session.paused_at),
    )


def described(session: Session, now: float) -> dict[str, Any]:
    """Give what `/clients` tells of a session at monotonic time ``now``."""
    encodings = {encoding.name.lower() for encoding in session.subscriptions.values()}
    state = "closing" if session.closing_at else "slow" if session.paused_at else "ok"
    return {
        "id": session.number,
        "peer": session.peer,
        "state": state,
        "messages_sent": session.messages_sent,
        "latency_ms": round(session.latency_ns / 1e6, 3),
        "queue_size": session.unsent_bytes,
        "subscriptions": len(session.subscriptions),
        "encoding": "+".join(sorted(encodings)),
        "conflations": session.conflations,
        "strikes": session.strikes,
        "seconds": round(now - session.opened, 1),
    }
