"""Updates as messages, in both encodings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from tvops.engine.instruments import Instrument
from tvops.engine.stream.frames import MAX_FRAME_ROWS, FrameFlag, Opcode, binary_frame, binary_messages, message
from tvops.engine.stream.history import Encoding
from tvops.engine.stream.intake import Update
from tvops.engine.stream.text import TextWriter


class Encoder:
    """Makes the data messages of one service run."""

    def __init__(self, instruments: list[Instrument], epoch: int) -> None:
        self.epoch = epoch
        self._text = TextWriter(instruments, epoch)

    def frames(self, update: Update, sent: int) -> list[bytes]:
        """Give the binary frames of ``update``, to be put into messages with those of other topics."""
        topic = update.topic
        return [
            binary_frame(
                topic.record_type, topic.instrument, rows, flags=flags, depth=topic.depth, epoch=self.epoch,
                sequence=sequence, sent=sent,
            )
            for rows, sequence, flags in _pieces(update)
        ]  # fmt: skip

    def texts(self, update: Update, sent: int) -> list[bytes]:
        """Give the JSON messages of ``update``, each a whole WebSocket message."""
        return [
            message(
                Opcode.TEXT,
                self._text.message(
                    update.topic, rows, flags=flags, sequence=sequence, sent=sent, missed=update.missed
                ),
            )
            for rows, sequence, flags in _pieces(update)
        ]

    def messages(self, update: Update, encoding: Encoding, sent: int) -> tuple[bytes, int]:
        """Give ``update`` as WebSocket messages for one session, and how many they are."""
        if encoding is Encoding.BINARY:
            return binary_messages(self.frames(update, sent))
        texts = self.texts(update, sent)
        return b"".join(texts), len(texts)


def _pieces(update: Update) -> Iterator[tuple[NDArray[Any], int, int]]:
    """Cut an update into frames; a snapshot is never cut. Only the first piece comes after what was left out."""
    rows, flags = update.rows, update.flags
    if len(rows) <= MAX_FRAME_ROWS or flags & FrameFlag.SNAPSHOT:
        yield rows, update.sequence, flags
        return
    for start in range(0, len(rows), MAX_FRAME_ROWS):
        piece = rows[start : start + MAX_FRAME_ROWS]
        yield piece, update.sequence - (len(rows) - start - len(piece)), 0 if start else flags
