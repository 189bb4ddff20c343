"""Limits for clients: how often something may happen, and how long an address must wait.

Law: no socket and no thread. The caller passes the time, in seconds on the monotonic clock.
"""

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
    """How long each address must wait after failures: twice as long after each, at most `longest_seconds`.

    A failure of an address that is already waiting changes nothing. An address that has failed less
    than `longest_seconds` ago is remembered.
    """

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first, self._longest = first_seconds, longest_seconds
        self._failures: dict[str, tuple[int, float]] = {}  # how many, and when the address may try again

    def waits(self, address: str, now: float) -> float:
        """Seconds that the address must still wait; 0 if it may try."""
        return max(0.0, self._failures.get(address, (0, 0.0))[1] - now)

    def fail(self, address: str, now: float) -> tuple[int, float]:
        """Count a failure. Returns how many there were, and the seconds to wait."""
        n_before, until = self._failures.pop(address, (0, 0.0))
        if now - until > self._longest:
            n_before = 0
        seconds = min(self._first * 2**n_before, self._longest)
        while len(self._failures) >= _MOST_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        self._failures[address] = n_before + 1, now + seconds
        return n_before + 1, seconds

    def succeed(self, address: str) -> None:
        """Forget the failures of an address."""
        self._failures.pop(address, None)
