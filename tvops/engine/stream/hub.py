"""All sessions of the service: groups that share their bytes, broadcast, and what happens to slow ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from picows import WSCloseCode

from tvops.engine.stream.encoder import Encoder
from tvops.engine.stream.frames import binary_messages
from tvops.engine.stream.history import Encoding, Topic
from tvops.engine.stream.intake import Intake, Update
from tvops.engine.stream.protocol import (
    MAX_SUBSCRIPTIONS,
    Catalogue,
    ProtocolError,
    Resume,
    Subscribe,
    Unsubscribe,
    described,
    encoding_of,
    history_of,
    reply,
)
from tvops.engine.stream.sessions import CLOSE_SECONDS, Group, Keys, Session
from tvops.engine.telemetry.recorder import Recorder

AUTH_SECONDS = 5.0
PING_SECONDS = 10.0
SILENCE_SECONDS = 30.0
STUCK_SECONDS = 10.0
KEEP_UP_SECONDS = 10.0

logger = logging.getLogger(__name__)


class Hub:
    """All sessions: who gets what, in which group, and how far behind anyone may fall."""

    def __init__(
        self,
        intake: Intake,
        encoder: Encoder,
        catalogue: Catalogue,
        *,
        buffer_bytes: int,
        threshold: int,
        history_load: Recorder,
    ) -> None:
        """Serve what ``intake`` takes.

        Args:
            intake: where states and missed records come from.
            encoder: makes the messages.
            catalogue: what can be asked for.
            buffer_bytes: unsent bytes over which a session is passed over.
            threshold: strikes after which it is closed.
            history_load: how long subscriptions and resumptions take until all is handed to the socket.
        """
        self.intake, self.encoder, self.catalogue = intake, encoder, catalogue
        self.buffer_bytes, self.threshold = buffer_bytes, threshold
        self.keys: Keys | None = None
        self._history_load = history_load
        self.sessions: dict[int, Session] = {}
        self.dropped = self.conflations = self.messages = 0
        self._numbers = 0
        self._keys_version = 0
        self._groups: dict[frozenset[int], Group] = {}
        self.now = time.monotonic

    def session(self, peer: str, key: str | None) -> Session:
        """Make the session of a new connection, which has shown a valid key or none."""
        self._numbers += 1
        return Session(self, self._numbers, peer, key)

    def add(self, session: Session) -> None:
        """Count a session as connected."""
        self.sessions[session.number] = session

    def remove(self, session: Session) -> None:
        """Forget a session."""
        self.quiet(session)
        self.messages += session.messages_sent
        self.sessions.pop(session.number, None)

    def quiet(self, session: Session) -> None:
        """Send the session nothing more, and count it out of its topics."""
        self._leave(session)
        for number, encoding in session.subscriptions.items():
            self._topic(number).subscribers[encoding] -= 1
        session.subscriptions.clear()

    # Broadcast

    def publish(self, updates: Iterable[Update], sent: int) -> bool:
        """Hand updates to everyone who wants them; tell whether there was anyone."""
        texts: list[tuple[int, bytes]] = []
        frames: list[tuple[int, bytes]] = []
        for update in updates:
            topic = update.topic
            if topic.subscribers[Encoding.JSON]:
                key = _key(topic.number, Encoding.JSON)
                texts += [(key, text) for text in self.encoder.texts(update, sent)]
            if topic.subscribers[Encoding.BINARY]:
                key = _key(topic.number, Encoding.BINARY)
                frames += [(key, frame) for frame in self.encoder.frames(update, sent)]
        if not texts and not frames:
            return False
        for group in list(self._groups.values()):
            self._broadcast(group, texts, frames)
        return True

    def _broadcast(self, group: Group, texts: list[tuple[int, bytes]], frames: list[tuple[int, bytes]]) -> None:
        keys = group.keys
        parts = [text for key, text in texts if key in keys]
        count = len(parts)
        wanted = [frame for key, frame in frames if key in keys]
        if wanted:
            binary, messages = binary_messages(wanted)
            parts.append(binary)
            count += messages
        if not parts:
            return
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        group.sent += count
        # a copy, because a session that is over its bound leaves the group during its write
        for session in list(group.members):
            session.write(data)

    # Requests

    def subscribe(self, session: Session, request: Subscribe) -> None:
        """Serve a subscription: the answer, the present state, then what follows."""
        begun = time.monotonic_ns()
        topics = self.catalogue.topics(request)
        encoding, history = encoding_of(request), history_of(request, topics)
        self._enlist(session, topics, encoding)
        fields = described(request, [self.catalogue.symbol(topic) for topic in topics])
        session.send(reply("subscribed", request.id, **fields, epoch=self.encoder.epoch))
        self._tell(session, [self.intake.state(topic, history) for topic in topics], encoding)
        self._history_load.record(time.monotonic_ns() - begun)

    def resume(self, session: Session, request: Resume) -> None:
        """Serve a resumption: what was missed where that is known, else the present state."""
        begun = time.monotonic_ns()
        topics = self.catalogue.topics(request)
        encoding, history = encoding_of(request), history_of(request, topics)
        known = request.epoch == self.encoder.epoch
        updates, answers = [], {}
        for topic in topics:
            symbol = self.catalogue.symbol(topic)
            update = self.intake.missed(topic, request.symbols[symbol]) if known else None
            answers[symbol] = {"recovered": update is not None, "seq": topic.ring.sequence}
            if update is None:
                updates.append(self.intake.state(topic, history))
            elif len(update.rows):
                updates.append(update)
        self._enlist(session, topics, encoding)
        session.send(reply("resumed", request.id, **described(request, answers), epoch=self.encoder.epoch))
        self._tell(session, updates, encoding)
        self._history_load.record(time.monotonic_ns() - begun)

    def unsubscribe(self, session: Session, request: Unsubscribe) -> None:
        """End subscriptions."""
        topics = self.catalogue.topics(request)
        held = [topic for topic in topics if topic.number in session.subscriptions]
        if not held:
            raise ProtocolError("not_subscribed", f"symbols: there is no {request.channel} subscription to end")
        self._leave(session)
        for topic in held:
            topic.subscribers[session.subscriptions.pop(topic.number)] -= 1
        self._join(session)
        fields = described(request, [self.catalogue.symbol(topic) for topic in held])
        session.send(reply("unsubscribed", request.id, **fields))

    def _enlist(self, session: Session, topics: list[Topic], encoding: Encoding) -> None:
        fresh = sum(topic.number not in session.subscriptions for topic in topics)
        if len(session.subscriptions) + fresh > MAX_SUBSCRIPTIONS:
            text = f"symbols: a session has at most {MAX_SUBSCRIPTIONS} subscriptions; end others first"
            raise ProtocolError("too_many_subscriptions", text)
        self._leave(session)
        for topic in topics:
            before = session.subscriptions.get(topic.number)
            if before is not None:
                topic.subscribers[before] -= 1
            session.subscriptions[topic.number] = encoding
            topic.subscribers[encoding] += 1
        self._join(session)

    def _tell(self, session: Session, updates: Iterable[Update], encoding: Encoding) -> None:
        sent = time.time_ns()
        for update in updates:
            session.send(*self.encoder.messages(update, encoding, sent))

    # Groups

    def _join(self, session: Session) -> None:
        if session.paused_at or session.closing_at or not session.subscriptions:
            return
        keys = frozenset(_key(number, encoding) for number, encoding in session.subscriptions.items())
        group = self._groups.get(keys)
        if group is None:
            group = self._groups[keys] = Group(keys)
        session.join(group)

    def _leave(self, session: Session) -> None:
        group = session.group
        if group is not None:
            session.leave()
            if not group.members:
                del self._groups[group.keys]

    def _topic(self, number: int) -> Topic:
        return self.intake.topics.all[number]

    # Slow sessions

    def pause(self, session: Session) -> None:
        """Pass a session over until it has read most of what waits for it: a strike."""
        session.paused_at = self.now()
        session.positions = {number: self._topic(number).ring.sequence for number in session.subscriptions}
        session.strikes += 1
        session.conflations += 1
        self.conflations += 1
        self._leave(session)
        if session.strikes >= self.threshold:
            # not from inside the write that led here
            asyncio.get_running_loop().call_soon(self.drop, session, "strikes")

    def unpause(self, session: Session) -> None:
        """Bring a session to the newest state and let it go on with the others."""
        session.paused_at, session.resumed_at = 0.0, self.now()
        sent = time.time_ns()
        for number, encoding in session.subscriptions.items():
            topic, position = self._topic(number), session.positions.get(number, 0)
            if topic.ring.sequence != position:
                session.send(*self.encoder.messages(self.intake.conflated(topic, position), encoding, sent))
        self._join(session)

    def drop(self, session: Session, why: str) -> None:
        """Close a session that is too slow."""
        if session.closing_at or session.number not in self.sessions:
            return
        self.dropped += 1
        reason = (
            f"too slow: {session.strikes} times over {self.buffer_bytes // 1024} kB unsent"
            if why == "strikes"
            else f"too slow: nothing read for {STUCK_SECONDS:.0f} s"
        )
        logger.info("session %d of %s closed: %s", session.number, session.peer, reason)
        session.close(WSCloseCode.TRY_AGAIN_LATER, reason)

    def sweep(self) -> None:
        """Do what time asks for: pings, deadlines, forgiven strikes. Called about once a second."""
        now = self.now()
        self._recheck_keys()
        for session in list(self.sessions.values()):
            if session.closing_at:
                if now - session.closing_at > CLOSE_SECONDS:
                    session.abort()
            elif session.transport.is_close_frame_sent:
                session.closing_at = now  # picows closes it for a broken frame
                self.quiet(session)
            elif session.paused_at:
                if now - session.paused_at > STUCK_SECONDS:
                    self.drop(session, "stuck")
            else:
                self._sweep_running(session, now)

    def _recheck_keys(self) -> None:
        """Close the sessions whose key was revoked."""
        if self.keys is None or self.keys.version == self._keys_version:
            return
        self._keys_version = self.keys.version
        for session in list(self.sessions.values()):
            if session.key is not None and self.keys.account(session.key) is None:
                session.close(WSCloseCode.POLICY_VIOLATION, "the API key is not valid any more")

    def _sweep_running(self, session: Session, now: float) -> None:
        if session.strikes and now - session.resumed_at > KEEP_UP_SECONDS:
            session.strikes = 0
        if not session.admitted and now - session.opened > AUTH_SECONDS:
            session.close(WSCloseCode.POLICY_VIOLATION, f"no API key within {AUTH_SECONDS:.0f} s")
        elif now - max(session.heard, session.resumed_at) > SILENCE_SECONDS:
            session.close(WSCloseCode.GOING_AWAY, f"nothing heard for {SILENCE_SECONDS:.0f} s")
        elif now - session.pinged >= PING_SECONDS:
            session.ping(now)


def _key(number: int, encoding: Encoding) -> int:
    return 2 * number + encoding
