"""The Spotter: samples of one stream in, detections out.

The law of this file: no thread, clock, socket, file or log. The daemon, `kwsd spot`,
training's evaluation, the tests and the benchmarks all run this object, so a recording
replayed faster than real time gives exactly the detections that it would have given live.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kwsd.audio import FloatArray, dbfs
from kwsd.decision import Decided, Decision
from kwsd.frontend import Framer, Resampler
from kwsd.model import Model
from kwsd.window import FrameRing

_FLUSH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Detection:
    """A keyword that was heard.

    Attributes:
        score: smoothed posterior, 0 to 1.
        start_seconds, end_seconds: the window that decided it, since the start of the stream.
        loudness_dbfs: root mean square of that window.
    """

    label: str
    score: float
    start_seconds: float
    end_seconds: float
    loudness_dbfs: float


class Spotter:
    """All that one stream remembers. The model is shared; two Spotters share nothing else.

    Args:
        model: from `load_model`.
        rate_hz: rate of the samples that will be pushed.
        start_seconds: stream time of the first sample.
        threshold, thresholds: as in `Decision`.
        on_posteriors: called with the posteriors of each window, shape (n_labels,), and the
            window's end on the model's sample clock, before it is decided.
    """

    def __init__(
        self,
        model: Model,
        rate_hz: int,
        *,
        start_seconds: float = 0.0,
        threshold: float | None = None,
        thresholds: dict[str, float] | None = None,
        on_posteriors: Callable[[FloatArray, int], object] | None = None,
    ) -> None:
        card = model.card
        self._model, self._params = model, card.frontend
        self._window_samples = card.window_samples
        self._stride_samples = card.stride_frames * card.frontend.hop_samples
        self._resampler = Resampler(rate_hz, card.frontend.sample_rate_hz)
        self._framer = Framer(card.frontend)
        self._ring = FrameRing(card.window_frames, card.stride_frames, card.frontend.n_bands)
        self._decision = Decision(card, threshold, thresholds)
        self._on_posteriors = on_posteriors
        self.reset(start_seconds)

    def push(self, samples: FloatArray) -> list[Detection]:
        """Hear more of the stream.

        Args:
            samples: shape (any,), float32, the next samples at `rate_hz`.

        Returns:
            what was detected; mostly nothing.
        """
        return self._hear(self._resampler.push(samples))

    def flush(self) -> list[Detection]:
        """End the stream: decide about its last word as half a second of quiet would let it be.

        A stream shorter than a window is filled up to one first.
        """
        rest = self._resampler.flush()
        rate_hz = self._params.sample_rate_hz
        missing = max(0, self._window_samples - self._n_heard - len(rest))
        quiet = np.zeros(missing + round(_FLUSH_SECONDS * rate_hz), np.float32)
        return self._hear(np.concatenate([rest, quiet]))

    def reset(self, start_seconds: float) -> None:
        """Forget what was heard; the next sample is at `start_seconds` of the stream."""
        self._start_seconds = start_seconds
        for part in (self._resampler, self._framer, self._ring, self._decision):
            part.reset()
        self._n_heard = 0  # samples at the model's rate since the reset
        self._next_end = self._window_samples  # where the next window will end
        self._tail = np.empty(0, np.float32)  # the last samples, for the loudness

    def _hear(self, samples: FloatArray) -> list[Detection]:
        if not len(samples):
            return []
        self._tail = np.concatenate([self._tail, samples])
        self._n_heard += len(samples)
        detections = []
        for window in self._ring.push(self._framer.push(samples)):
            # One window a run: a larger batch is no faster for small networks, and its
            # matrix products round otherwise, so the chunking would show in the scores.
            posteriors = self._model.posteriors(window[None])[0]
            if self._on_posteriors:
                self._on_posteriors(posteriors, self._next_end)
            decided = self._decision.push(posteriors, self._next_end)
            detections += [self._detection(one) for one in decided]
            self._next_end += self._stride_samples
        self._tail = self._tail[max(0, len(self._tail) - self._window_samples) :]
        return detections

    def _detection(self, decided: Decided) -> Detection:
        rate_hz = self._params.sample_rate_hz
        start = decided.end - self._window_samples
        tail_start = self._n_heard - len(self._tail)
        heard = self._tail[max(0, start - tail_start) : decided.end - tail_start]
        return Detection(
            label=decided.label,
            score=decided.score,
            start_seconds=self._start_seconds + start / rate_hz,
            end_seconds=self._start_seconds + decided.end / rate_hz,
            loudness_dbfs=dbfs(heard),
        )
