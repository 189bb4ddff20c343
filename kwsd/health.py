"""Health: is everything heard that should be?

The law of this file: only audio that really arrived, and went through the ear, counts. What
says so is the audio that was heard between two looks, so no clock of a stream is trusted.
"""

from dataclasses import dataclass

from kwsd.capture import Capture, Inbox
from kwsd.ear import Ear

DEAF_SECONDS = 10.0
"""A source that is up and was not heard for so long is deaf; captures announce theirs sooner."""

_OPENING_SECONDS = 60.0
"""A source that takes so long to open will not be: a sound server hangs, and PortAudio with it."""


@dataclass(slots=True)
class _Seen:
    heard_seconds: float
    at: float


class Health:
    """Of the streams that are configured.

    Args:
        ear: what hears them; inbox: what it hears them from.
        captures: of the streams whose sources kwsd reads itself. That another program sends
            nothing over the network is no defect of this process.
    """

    def __init__(self, ear: Ear, inbox: Inbox, streams: list[str], captures: dict[str, Capture], now: float) -> None:
        self._ear, self._inbox, self._captures = ear, inbox, captures
        self._seen = {stream: _Seen(0.0, now) for stream in streams}

    def look(self, now: float) -> None:
        """Note which streams were heard since the last look. `now` is of a monotonic clock, in seconds."""
        for stream, seen in self._seen.items():
            heard_seconds = self._ear.figures[stream].heard_seconds
            if heard_seconds > seen.heard_seconds:
                self._seen[stream] = _Seen(heard_seconds, now)

    @property
    def has_heard_all(self) -> bool:
        """Whether audio of every source that kwsd reads itself has arrived."""
        return all(self._seen[stream].heard_seconds > 0 for stream in self._captures)

    def deaf(self, now: float) -> dict[str, str]:
        """The streams that are not heard, and why."""
        reasons = {}
        for stream, seen in self._seen.items():
            figures = self._ear.figures[stream]
            if not figures.is_up:
                reasons[stream] = figures.down
            elif now - seen.at > DEAF_SECONDS:
                reasons[stream] = f"no audio for {now - seen.at:.0f} s"
        return reasons

    def is_stuck(self, now: float) -> bool:
        """Whether this process itself hears nothing where it should: starting it anew would help.

        A source that is down is opened again by its capture, which says so: that is no reason,
        unless opening it takes for ever.
        """
        is_deaf = any(
            self._ear.figures[stream].is_up and now - self._seen[stream].at > DEAF_SECONDS for stream in self._captures
        )
        begins = [capture.opening_since for capture in self._captures.values() if capture.opening_since is not None]
        hangs = any(now - begin > _OPENING_SECONDS for begin in begins)
        return is_deaf or hangs or self._inbox.waiting_seconds() > DEAF_SECONDS
