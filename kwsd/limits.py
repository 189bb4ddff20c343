"""Limits for clients: how often something may happen, and how long an address must wait.

Law: no socket and no thread. The caller passes the time, in seconds on the monotonic clock.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST_ADDRESSES = 1000  # remembered; the one that failed longest ago is forgotten first


class Rate:
    """A token bucket: `burst` times at once, then `per_second`.

    The time since the last call fills the bucket.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second, self._burst = per_second, burst
        self._n_left, self._at = float(burst), 0.0

    def allows(self, now: float) -> bool:
        """Whether it may happen once more; if so, this call counts."""
        self._n_left = min(self._burst, self._n_left + (now - self._at) * self.per_second)
        self._at = now
        if self._n_left < 1:
            return False
        self._n_left -= 1
        return True


class Penalties:
    """How long an address waits after a failure: twice as long after each, at most `longest_seconds`.

    An address is forgotten `longest_seconds` after its last wait, or when there are too many.
    """

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first, self._longest = first_seconds, longest_seconds
        self._failures: dict[str, tuple[int, float]] = {}  # how many, and when the last wait ends

    def remaining(self, address: str, now: float) -> float:
        """Seconds that the address still waits."""
        _, until = self._failures.get(address, (0, now))
        return max(0.0, until - now)

    def fail(self, address: str, now: float) -> tuple[int, float]:
        """Count a failure, unless the address is already waiting.

        Returns:
            how many there were, or 0 if this one was not counted; and the seconds to wait.
        """
        n_before, until = self._failures.get(address, (0, -self._longest))
        if now < until:
            return 0, until - now
        n = 1 if now - until > self._longest else n_before + 1
        seconds = min(self._first * 2 ** min(n - 1, 30), self._longest)
        self._failures.pop(address, None)
        while len(self._failures) >= _MOST_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        self._failures[address] = n, now + seconds
        return n, seconds


class Crowd(Generic[T]):
    """A limited number of newcomers. When it is full, one gives way: the oldest of the address that has most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._addresses: dict[T, str] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._addresses)

    def __iter__(self) -> Iterator[T]:
        return iter(self._addresses)

    def add(self, newcomer: T, address: str) -> T | None:
        """Add a newcomer. Returns the one that gave way, if one had to."""
        gone = self._busiest() if len(self._addresses) >= self._most else None
        if gone is not None:
            self.discard(gone)
        self._addresses[newcomer] = address
        return gone

    def discard(self, newcomer: T) -> None:
        """Remove a newcomer, if it is there."""
        self._addresses.pop(newcomer, None)

    def _busiest(self) -> T:
        [(busiest, _)] = Counter(self._addresses.values()).most_common(1)
        return next(newcomer for newcomer, address in self._addresses.items() if address == busiest)
