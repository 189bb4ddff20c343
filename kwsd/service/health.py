"""Health: does audio of every stream arrive and get processed?

Law: only audio that really went through the detector counts. Two looks compare the amount processed,
so no stream's clock is trusted.
"""

from dataclasses import dataclass

from kwsd.service.capture import Capture
from kwsd.service.detector import Detector
from kwsd.service.inbox import Inbox

DEAF_SECONDS = 10.0
"""A source that is up and delivers nothing for this long is deaf. The capture of a device reports it sooner."""

_STUCK_SECONDS = 60.0
"""A source that takes this long to open never will: the sound server hangs, and PortAudio with it."""


@dataclass(slots=True)
class _Seen:
    heard_seconds: float
    at: float


class Health:
    """Watches the configured streams.

    Args:
        detector: what processes them.
        inbox: what it takes audio from.
        captures: of the streams whose sources kwsd reads itself. A program that sends nothing over
            the audio socket is no defect of this process.
        now: here and below, seconds of a monotonic clock.

    Attributes:
        is_listening: whether the detector processes what arrives. Until then nothing is stuck.
    """

    def __init__(
        self, detector: Detector, inbox: Inbox, streams: list[str], captures: dict[str, Capture], now: float
    ) -> None:
        self._detector, self._inbox, self._captures = detector, inbox, captures
        self._seen = {stream: _Seen(0.0, now) for stream in streams}
        self.is_listening = False

    def look(self, now: float) -> None:
        """Note which streams were processed since the last look. One that is down has nothing to be late with."""
        for stream, seen in self._seen.items():
            figures = self._detector.figures[stream]
            if figures.heard_seconds > seen.heard_seconds or not figures.is_up:
                self._seen[stream] = _Seen(figures.heard_seconds, now)

    @property
    def has_heard_all(self) -> bool:
        """Whether audio of every source that kwsd reads itself has arrived."""
        return all(self._seen[stream].heard_seconds > 0 for stream in self._captures)

    def deaf(self, now: float) -> dict[str, str]:
        """The streams from which no audio arrives, and why."""
        reasons = {}
        for stream, seen in self._seen.items():
            figures = self._detector.figures[stream]
            if not figures.is_up:
                reasons[stream] = figures.down
            elif now - seen.at > DEAF_SECONDS:
                reasons[stream] = f"no audio for {now - seen.at:.0f} s"
        return reasons

    def is_stuck(self, now: float) -> bool:
        """Whether this process itself is the problem, so that a restart would help.

        A source that is down does not count, because its capture reopens it; unless opening hangs. Nor does a pipe
        or a recording that pauses, because a restart does not make it go on.
        """
        is_deaf = any(
            self._detector.figures[stream].is_up and now - self._seen[stream].at > DEAF_SECONDS
            for stream, capture in self._captures.items()
            if capture.is_live
        )
        begins = [capture.opening_since for capture in self._captures.values() if capture.opening_since is not None]
        hangs = any(now - begin > _STUCK_SECONDS for begin in begins)
        return self.is_listening and (is_deaf or hangs or self._inbox.waiting_seconds() > DEAF_SECONDS)
