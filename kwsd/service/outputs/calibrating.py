"""Calibration from the live page: listens for a while, then proposes thresholds."""

from dataclasses import dataclass
from typing import Annotated, Any

from kwsd.core.calibration import choose_thresholds, trade_off
from kwsd.core.stream_batch import Windows
from kwsd.core.sweep import Sweep
from kwsd.service.control import Control
from kwsd.typed import Between


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a user asks for.

    Attributes:
        minutes: how long to listen. No keyword should be said meanwhile.
        false_accepts_per_hour: the budget, all keywords together.
    """

    stream: str
    minutes: Annotated[float, Between(0, 1440, above=True)]
    false_accepts_per_hour: Annotated[float, Between(0, 1000, above=True)]


class Calibrating:
    """The present calibration, or the last one; one at a time."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._wish: Wish | None = None
        self._card = control.card
        self._sweep = Sweep(self._card)
        self._end = 0  # of the last window
        self._is_listening = False

    def start(self, wish: Wish) -> None:
        """Begin to listen, in place of an earlier calibration.

        Raises:
            ValueError: the stream is not up, or is muted.
        """
        if not self._is_up(wish.stream):
            raise ValueError(f"stream: {wish.stream!r:.60} is not up")
        if self._control.is_muted(wish.stream):
            raise ValueError(f"stream: {wish.stream!r:.60} is muted")
        self.stop()
        self._wish, self._card = wish, self._control.card
        self._sweep, self._end, self._is_listening = Sweep(self._card), 0, True
        self._control.taps = {wish.stream: self._take}

    def stop(self) -> None:
        """Stop listening; what was heard stays."""
        self._control.taps, self._is_listening = {}, False

    def status(self) -> dict[str, Any]:
        """How far it is, and what it proposes. A stream that has gone down ends it."""
        if not self._wish:
            return {"state": "none"}
        if self._is_listening and not self._is_up(self._wish.stream):
            self.stop()
        counts, hours = self._sweep.counts, self._heard_seconds / 3600
        status = {
            "state": "listening" if self._is_listening else "done",
            **vars(self._wish),
            "heard_seconds": round(self._heard_seconds, 1),
        }
        if not hours:
            return status | {"thresholds": {}, "curve": []}
        result = choose_thresholds(self._card, counts, hours, self._wish.false_accepts_per_hour)
        return status | {
            "thresholds": result.thresholds,
            "n_false": sum(one.n_false for one in result.keywords),
            "missed": result.missed,
            "basis": result.basis,
            "needed_hours": round(result.needed_hours, 3),
            "curve": [[round(rate, 3), round(share, 4)] for rate, share in trade_off(self._card, counts, hours)],
        }

    @property
    def _heard_seconds(self) -> float:
        return self._sweep.n_windows * self._card.stride_seconds

    def _is_up(self, stream: str) -> bool:
        figures = self._control.streams.get(stream)
        return figures is not None and figures.is_up

    def _take(self, windows: Windows) -> None:
        assert self._wish
        if self._control.card is not self._card or self._control.is_muted(self._wish.stream):
            self.stop()  # what follows says nothing about this model, or this room
            return
        end = windows.ends.item()
        if end <= self._end:  # after a hole in the audio
            self._sweep.reset()
        self._end = end
        self._sweep.push([windows])
        if self._heard_seconds >= 60 * self._wish.minutes:
            self.stop()
