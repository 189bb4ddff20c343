"""The Spotter: samples of one stream in, detections out.

Law: no thread, clock, socket, file or log. The daemon, `kwsd spot`, training's evaluation and the
tests all run this object, so a recording replayed faster than real time gives exactly the
detections that it would have given live.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from kwsd.audio import FloatArray
from kwsd.core.decision import thresholds_of
from kwsd.core.frontend import Resampler
from kwsd.core.stream_batch import Decided, StreamBatch, StreamModel, Windows

_FLUSH_SECONDS = 0.5
"""Silence after a stream: several strides, so that smoothing does not hide its last word."""

_SHORTEST_SECONDS = 0.1
"""A shorter stream holds no word."""


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
    """One stream, alone or in a batch with others.

    Alone, `push` and `flush` are all that is needed. A caller that runs several streams in one batch
    resamples with `resample` and `ending`, gives all samples to `StreamBatch.process`, and turns what
    was decided into detections with `detection`.

    Attributes:
        row: the stream's row in the batch.

    Args:
        model: from `load_model`.
        rate_hz: rate of the samples that will be pushed.
        start_seconds: stream time of the first sample.
        thresholds: replace those of the model's card, by keyword.
        batch: a batch of the same model that other streams share; None for a batch of its own.
    """

    def __init__(
        self,
        model: StreamModel,
        rate_hz: int,
        *,
        start_seconds: float = 0.0,
        thresholds: Mapping[str, float] | None = None,
        batch: StreamBatch | None = None,
    ) -> None:
        self._card, self._batch = model.card, batch or StreamBatch(model)
        self._rate_hz = model.card.frontend.sample_rate_hz
        self._resampler = Resampler(rate_hz, self._rate_hz)
        self.row = self._batch.join(thresholds_of(model.card, thresholds))
        self._start_seconds = start_seconds
        self._n_samples = 0  # since the last reset, at the model's rate

    def push(self, samples: FloatArray) -> list[Detection]:
        """Process more of the stream.

        Args:
            samples: shape (any,), float32, the next samples at `rate_hz`.

        Returns:
            the keywords that were detected; usually none.
        """
        return self.detections(self.process(samples))

    def process(self, samples: FloatArray) -> Iterator[Windows]:
        """As `push`, but yields every window with its posteriors and scores. Iterate to the end."""
        return self._batch.process({self.row: self.resample(samples)})

    def flush(self) -> list[Detection]:
        """End the stream, and decide its last word. Call `reset` before the next `push`."""
        return self.detections(self._batch.process({self.row: self.ending()}))

    def ending(self) -> FloatArray:
        """The end of the stream, at the model's rate: its last samples, then half a second of silence.

        A stream that is shorter than a window is first padded to one. A stream that is too short for
        a word has no end. Shape: -> (any,).
        """
        rest = self._resampler.flush()
        self._n_samples += len(rest)
        if self._n_samples < _SHORTEST_SECONDS * self._rate_hz:
            return rest[:0]
        missing = max(0, self._card.window_samples - self._n_samples)
        return np.concatenate([rest, np.zeros(missing + round(_FLUSH_SECONDS * self._rate_hz), np.float32)])

    def reset(self, start_seconds: float) -> None:
        """Forget all samples. The next sample is at `start_seconds` of the stream."""
        self._resampler.reset()
        self._batch.reset(self.row)
        self._start_seconds, self._n_samples = start_seconds, 0

    def set_thresholds(self, thresholds: Mapping[str, float] | None) -> None:
        """Replace the thresholds from the next window on. The stream goes on."""
        self._batch.set_thresholds(self.row, thresholds_of(self._card, thresholds))

    def close(self) -> None:
        """Leave a shared batch."""
        self._batch.leave(self.row)

    def resample(self, samples: FloatArray) -> FloatArray:
        """The next samples, at the model's rate. Shape: (any,) -> (any,)."""
        resampled = self._resampler.push(samples)
        self._n_samples += len(resampled)
        return resampled

    def detections(self, windows: Iterable[Windows]) -> list[Detection]:
        """What was decided in windows of a batch of this stream alone."""
        return [self.detection(one) for run in windows for one in run.decided]

    def detection(self, decided: Decided) -> Detection:
        """What was decided, with this stream's clock."""
        return Detection(
            label=decided.label,
            score=decided.score,
            start_seconds=self.seconds_at(decided.end - self._card.window_samples),
            end_seconds=self.seconds_at(decided.end),
            loudness_dbfs=decided.loudness_dbfs,
        )

    def seconds_at(self, end: int) -> float:
        """Stream time of a position on the model's sample clock."""
        return self._start_seconds + end / self._rate_hz
