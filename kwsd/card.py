"""The model card: all that a model file says about itself.

The law of this file: the card is one JSON object in the ONNX file's metadata, written by
`export/` and read by `kwsd`. A card that does not fit is refused with every reason at
once, in one line; nothing in it is executed.
"""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.errors import ModelError
from kwsd.frontend import FrontendParams, log_spectrogram

FORMAT = 2
METADATA_KEY = "kwsd"
STEP_KEY = "kwsd_step"
"""The step graph beside the card, an ONNX file in base 64: `export.causal` has what it is."""


@dataclass(frozen=True, slots=True)
class DecisionParams:
    """How posteriors become detections.

    Attributes:
        smoothing_windows: the score is the mean posterior of so many windows.
        refractory_seconds: a label that fired cannot fire again for so long.
        thresholds: for each keyword, the score from which it counts as heard.
    """

    smoothing_windows: int
    refractory_seconds: float
    thresholds: dict[str, float]


@dataclass(frozen=True, slots=True)
class GoldenCheck:
    """Seeded input and the posteriors that Keras gave for it, shape (n_windows, n_labels)."""

    seed: int
    posteriors: list[list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What kwsd must know to run a model, and what a user wants to know about it.

    Attributes:
        format: version of this layout.
        labels: names of the model's outputs, in their order.
        silence, unknown: which of the labels are no keywords.
        window_frames: frames that the model sees; stride_frames: between two inferences.
        unknown_odds: what `kwsd label` multiplies the odds of unknown by: training hears unknown
            more often, as a stream does, than a folder of clips.
        training, results: free JSON for the reader: data, split, digests, seed, versions;
            what was measured on what.
        licence, attribution: of the model and of the data that it was trained on.
    """

    format: int = FORMAT
    name: str
    labels: list[str]
    silence: str
    unknown: str
    frontend: FrontendParams
    window_frames: int
    stride_frames: int
    decision: DecisionParams
    golden: GoldenCheck
    unknown_odds: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    attribution: str = ""

    @property
    def keywords(self) -> list[str]:
        return [label for label in self.labels if label not in (self.silence, self.unknown)]

    @property
    def window_samples(self) -> int:
        """Samples that a window covers, at the model's rate."""
        return self.frontend.n_samples(self.window_frames)

    @property
    def stride_seconds(self) -> float:
        """From one decision to the next."""
        return self.stride_frames * self.frontend.hop_samples / self.frontend.sample_rate_hz

    def clip_posteriors(self, posteriors: FloatArray) -> FloatArray:
        """Posteriors of windows become those of clips. Shape: (n_clips, n_labels), the same."""
        weights = np.ones(len(self.labels), np.float32)
        weights[self.labels.index(self.unknown)] = self.unknown_odds
        weighted = posteriors * weights
        clips: FloatArray = weighted / weighted.sum(axis=1, keepdims=True)
        return clips

    def with_stride(self, stride_frames: int) -> "ModelCard":
        """The same, deciding so often; smoothing covers the same time."""
        smoothing = round(self.decision.smoothing_windows * self.stride_frames / stride_frames)
        decision = replace(self.decision, smoothing_windows=max(1, smoothing))
        return replace(self, stride_frames=stride_frames, decision=decision)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Parse and check.

        Raises:
            ModelError: no JSON object, an unknown format, a missing, unknown or wrong key.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError:
            raise ModelError("its model card is not JSON") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, dict) else None
            raise ModelError(
                f"its model card has format {found!r}, this kwsd reads {FORMAT}: "
                "export the model again, or install the kwsd that made it"
            )
        nested = {"frontend": FrontendParams, "decision": DecisionParams, "golden": GoldenCheck}
        try:
            card = cls(**{key: _build(nested[key], value) if key in nested else value for key, value in data.items()})
            problems = card.problems()
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"its model card is damaged ({error})") from None
        if problems:
            raise ModelError(f"its model card is wrong: {'; '.join(problems)}")
        return card

    def problems(self) -> list[str]:
        """What contradicts itself or this kwsd; empty when nothing does."""
        found = self.frontend.problems()
        if len(set(self.labels)) != len(self.labels):
            found.append("a label occurs twice")
        if not {self.silence, self.unknown} <= set(self.labels):
            found.append("the silence or unknown label is not among the labels")
        if min(self.window_frames, self.stride_frames, self.decision.smoothing_windows) < 1:
            found.append("window, stride and smoothing must be positive")
        if set(self.decision.thresholds) != set(self.keywords):
            found.append("thresholds and keywords differ")
        if not all(0 < threshold <= 1 for threshold in self.decision.thresholds.values()):
            found.append("a threshold is not between 0 and 1")
        if not 0 <= self.decision.refractory_seconds < np.inf:
            found.append("the refractory period is negative or endless")
        if not 0 < self.unknown_odds < np.inf:
            found.append("unknown_odds is not positive")
        rows = self.golden.posteriors
        if not rows or any(len(row) != len(self.labels) for row in rows) or not 0 <= self.golden.seed < 2**32:
            found.append("the golden check has no seed, no windows, or another number of labels")
        return found


def golden_windows(seed: int, n_windows: int, window_frames: int, params: FrontendParams) -> FloatArray:
    """The input of the golden check: front-end output for seeded bursts of tones and noise.

    Chance comes from multiples of the golden ratio and of their squares, modulo 1 (H. Weyl,
    1916): the same on every machine, for good, and without numpy.random, which costs a daemon
    7 MB. Going through the front end, the check also finds a front end that has changed.

    Shape: -> (n_windows, window_frames, n_bands), float32.
    """
    n_samples = params.n_samples(window_frames)
    n = np.arange(n_samples)
    seconds = n / params.sample_rate_hz
    clips = []
    for index in range(n_windows):
        draws = _fraction(np.arange(1, 4) + seed % 65536 + 3 * index)
        tone_hz, centre, width = np.array((150, 0.2, 0.05)) + draws * (1350, 0.6, 0.25)
        noise = np.sqrt(12) * (_fraction((n + n_samples * index).astype(np.float64) ** 2) - 0.5)
        burst = np.exp(-(((seconds - centre) / width) ** 2))
        tones = sum(np.sin(2 * np.pi * tone_hz * k * seconds) / k for k in (1, 2, 3))
        clips.append(burst * (0.1 * tones + 0.05 * noise) + 0.003 * noise[::-1])
    return np.stack([log_spectrogram(clip.astype(np.float32), params) for clip in clips])


def _fraction(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """What multiples of the golden ratio have behind the point."""
    fractions: NDArray[np.float64] = np.modf(numbers * ((np.sqrt(5) - 1) / 2))[0]
    return fractions


def _build(kind: type[Any], value: Any) -> Any:
    known = {f.name for f in fields(kind)}
    if not isinstance(value, dict) or not set(value) <= known:
        raise TypeError(f"{kind.__name__} has unknown keys")
    return kind(**value)
