"""The Spotter: samples of one stream in, detections out.

The law of this file: no thread, clock, socket, file or log. The daemon, `kwsd spot`,
training's evaluation and the tests all run this object, so a recording replayed faster than
real time gives exactly the detections that it would have given live.
"""

from dataclasses import dataclass

import numpy as np

from kwsd.audio import FloatArray
from kwsd.batcher import Batcher, Decided, OnPosteriors
from kwsd.decision import chosen_thresholds
from kwsd.frontend import Resampler
from kwsd.model import Model

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
    """One stream. It can be alone, or share a batcher with others that are heard with it.

    Attributes:
        row: in the batcher.

    Args:
        model: from `load_model`.
        rate_hz: rate of the samples that will be pushed.
        start_seconds: stream time of the first sample.
        threshold, thresholds: as in `kwsd.decision.chosen_thresholds`.
        on_posteriors: as in `Batcher.join`.
        batcher: the model's, shared with other streams; None for one of its own.
    """

    def __init__(
        self,
        model: Model,
        rate_hz: int,
        *,
        start_seconds: float = 0.0,
        threshold: float | None = None,
        thresholds: dict[str, float] | None = None,
        on_posteriors: OnPosteriors | None = None,
        batcher: Batcher | None = None,
    ) -> None:
        self._rate_hz, self._window_samples = model.card.frontend.sample_rate_hz, model.card.window_samples
        self._resampler = Resampler(rate_hz, self._rate_hz)
        self._card, self._batcher = model.card, batcher or Batcher(model)
        self.row = self._batcher.join(chosen_thresholds(model.card, threshold, thresholds), on_posteriors)
        self._begin(start_seconds)

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

        A stream shorter than a window is filled up to one first; one of no samples says nothing.
        """
        rest = self._resampler.flush()
        if not self._n_heard + len(rest):
            return []
        missing = max(0, self._window_samples - self._n_heard - len(rest))
        quiet = np.zeros(missing + round(_FLUSH_SECONDS * self._rate_hz), np.float32)
        return self._hear(np.concatenate([rest, quiet]))

    def reset(self, start_seconds: float) -> None:
        """Forget what was heard; the next sample is at `start_seconds` of the stream."""
        self._resampler.reset()
        self._batcher.begin(self.row)
        self._begin(start_seconds)

    def change(self, threshold: float | None, thresholds: dict[str, float] | None) -> None:
        """Other thresholds from here on, as in `kwsd.decision.chosen_thresholds`; what was heard is not forgotten."""
        self._batcher.change(self.row, chosen_thresholds(self._card, threshold, thresholds))

    def seconds_at(self, end: int) -> float:
        """Stream time of the model's sample clock."""
        return self._start_seconds + end / self._rate_hz

    def close(self) -> None:
        """Leave a shared batcher."""
        self._batcher.leave(self.row)

    def _begin(self, start_seconds: float) -> None:
        self._start_seconds = start_seconds
        self._n_heard = 0  # samples at the model's rate

    def _hear(self, samples: FloatArray) -> list[Detection]:
        self._n_heard += len(samples)
        return [self._detection(one) for one in self._batcher.hear({self.row: samples})]

    def _detection(self, decided: Decided) -> Detection:
        return Detection(
            label=decided.label,
            score=decided.score,
            start_seconds=self.seconds_at(decided.end - self._window_samples),
            end_seconds=self.seconds_at(decided.end),
            loudness_dbfs=decided.loudness_dbfs,
        )


def push_all(batcher: Batcher, chunks: dict[Spotter, FloatArray]) -> dict[Spotter, list[Detection]]:
    """Hear more of streams that share a batcher, in as few runs as that takes.

    Args:
        chunks: for each stream the next samples, shape (any,), as `Spotter.push` takes them.

    Returns:
        what was detected, for each of them; what it would have been alone.
    """
    by_row = {spotter.row: spotter for spotter in chunks}
    samples = {spotter.row: spotter._resampler.push(chunk) for spotter, chunk in chunks.items()}
    detections: dict[Spotter, list[Detection]] = {spotter: [] for spotter in chunks}
    for row, resampled in samples.items():
        by_row[row]._n_heard += len(resampled)
    for decided in batcher.hear(samples):
        spotter = by_row[decided.row]
        detections[spotter].append(spotter._detection(decided))
    return detections
