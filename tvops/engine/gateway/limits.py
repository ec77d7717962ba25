"""Rate limits: a token bucket per account."""

from __future__ import annotations

BURST_SECONDS = 2.0


class RateLimiter:
    """Lets every account do ``rate`` commands per second, and `BURST_SECONDS` worth of them at once."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._buckets: dict[int, list[float]] = {}

    def admit(self, account: int, commands: int, now: float) -> float:
        """Count ``commands`` at monotonic time ``now`` (seconds) and give 0, or the seconds to wait instead.

        A batch larger than the burst is admitted when the bucket is full, and leaves a debt.
        """
        bucket = self._buckets.get(account)
        if bucket is None:
            bucket = self._buckets[account] = [self._burst, now]
        tokens = min(self._burst, bucket[0] + (now - bucket[1]) * self.rate)
        needed = min(float(commands), self._burst)
        bucket[1] = now
        if tokens < needed:
            bucket[0] = tokens
            return (needed - tokens) / self.rate
        bucket[0] = tokens - commands
        return 0.0
