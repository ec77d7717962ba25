"""Memory that the system gives page by page as it is first touched: the arena and the event buffer."""

import mmap
import sys

import numpy as np

from tvops.engine.matching import layout as at
from tvops.engine.matching.layout import Array
from tvops.engine.records import EVENT

_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0


def _map(size: int) -> mmap.mmap:
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    if sys.platform == "linux":
        pages.madvise(mmap.MADV_NOHUGEPAGE)  # one touched level must not cost 2 MB
    return pages


class Arena:
    """The engine's state as one array of int64 words, which can grow."""

    def __init__(self, words: int) -> None:
        self._pages = _map(words * 8)
        self._look()

    def _look(self) -> None:
        self.words: Array = np.frombuffer(self._pages, np.int64)
        self.words[at.H_CAPACITY] = len(self.words)

    def grow(self, words: int) -> None:
        """Make room for ``words`` in all; what is there moves without being copied.

        Raises:
            MemoryError: the system does not give so much address space.
        """
        self.words = np.empty(0, np.int64)  # a mapping that an array looks at cannot be resized
        try:
            self._pages.resize(words * 8)
        except OSError as error:
            raise MemoryError(f"the books need {words * 8 >> 20} MiB of address space: {error}") from None
        finally:
            self._look()


class EventBuffer:
    """Rows of EVENT: `room` for those of finished commands, and behind it enough for any one command more."""

    def __init__(self, room: int, worst: int) -> None:
        self._small, self._worst = room, worst
        self._allocate(room)

    def _allocate(self, room: int) -> None:
        self.room = room
        self._pages = _map((room + 1 + self._worst) * EVENT.itemsize)
        self.rows = np.frombuffer(self._pages, EVENT)
        self.words: Array = np.frombuffer(self._pages, np.int64)

    def grow(self, used: int) -> None:
        """Double the room, keeping the first ``used`` rows."""
        rows = self.rows
        self._allocate(2 * max(self.room, used))
        self.rows[:used] = rows[:used]

    def reuse(self) -> None:
        """Give what a large batch took back to the system; the rows are lost."""
        if self.room > self._small or sys.platform != "linux":
            self._allocate(self._small)
        else:
            self._pages.madvise(mmap.MADV_DONTNEED)


def fresh_arena(max_orders: int, max_accounts: int, max_keys: int, ladders: int = 0) -> Arena:
    """Map an empty state with room for ``ladders`` words of ladders."""
    regions = at.fixed_words(max_orders, max_accounts, max_keys)
    arena = Arena(regions[at.H_END] + ladders)
    words = arena.words
    words[at.H_MAX_ORDERS], words[at.H_MAX_ACCOUNTS], words[at.H_MAX_KEYS] = max_orders, max_accounts, max_keys
    words[list(regions)] = list(regions.values())
    words[at.H_MAX_OPEN] = at.UNLIMITED
    return arena
