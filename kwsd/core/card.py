"""The model card: everything that a model file says about itself.

Law: the card is one JSON object in the ONNX file's metadata, written by `export/` and read by kwsd.
A card that does not fit is refused in one line with every reason. Nothing in it is executed.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.core.frontend import FrontendParams, log_spectrogram
from kwsd.errors import ModelError
from kwsd.typed import Between, Printable, ProblemsError, build, parse_json

FORMAT = 2
METADATA_KEY = "kwsd"
STEP_KEY = "kwsd_step"
"""Metadata key of the step graph, an ONNX file in base 64. `export.causal` describes the graph."""

Threshold = Annotated[float, Between(0, 1, above=True)]
_LONGEST_SECONDS = 10.0  # of a window
_MOST_GOLDEN = 100  # windows of the golden check
_Frames = Annotated[int, Between(1, 10_000)]


@dataclass(frozen=True, slots=True)
class DecisionParams:
    """How posteriors become detections.

    Attributes:
        smoothing_windows: the score is the mean posterior of this many windows.
        refractory_seconds: a label that fired cannot fire again for this long.
        thresholds: for each keyword the lowest score that counts as heard.
    """

    smoothing_windows: Annotated[int, Between(1, 1000)]
    refractory_seconds: Annotated[float, Between(0, 3600)]
    thresholds: dict[str, Threshold]


@dataclass(frozen=True, slots=True)
class GoldenCheck:
    """A seed for input windows, and Keras's posteriors for them, shape (n_windows, n_labels)."""

    seed: Annotated[int, Between(0, 2**32 - 1)]
    posteriors: list[list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What kwsd needs in order to run a model, and what a user wants to know about it.

    Attributes:
        format: version of this layout.
        labels: names of the model's outputs, in order.
        silence, unknown: the two labels that are not keywords.
        window_frames: frames that the model sees.
        stride_frames: frames between two inferences.
        unknown_odds: `kwsd label` multiplies the odds of unknown by this number, because unknown
            is more frequent in training, as in a stream, than in a folder of clips.
        training: free JSON: data, split, digests, seed, versions.
        results: free JSON: the measured figures and what they were measured on.
        licence, attribution: of the model, and of the data it was trained on.
    """

    format: int = FORMAT
    name: Annotated[str, Printable()]
    labels: list[Annotated[str, Printable()]]
    silence: str
    unknown: str
    frontend: FrontendParams
    window_frames: _Frames
    stride_frames: _Frames
    decision: DecisionParams
    golden: GoldenCheck
    unknown_odds: Annotated[float, Between(0, 1e6, above=True)] = 1.0
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    attribution: str = ""

    @property
    def keywords(self) -> list[str]:
        return [label for label in self.labels if label not in (self.silence, self.unknown)]

    @property
    def window_samples(self) -> int:
        """Samples under a window, at the model's rate."""
        return self.frontend.n_samples(self.window_frames)

    @property
    def window_seconds(self) -> float:
        """Time that a decision is about."""
        return self.window_samples / self.frontend.sample_rate_hz

    @property
    def stride_seconds(self) -> float:
        """Time between two decisions."""
        return self.stride_frames * self.frontend.hop_samples / self.frontend.sample_rate_hz

    def with_unknown_odds(self, posteriors: FloatArray) -> FloatArray:
        """Apply `unknown_odds`. Shape: (n_clips, n_labels) -> the same."""
        weights = np.ones(len(self.labels), np.float32)
        weights[self.labels.index(self.unknown)] = self.unknown_odds
        weighted = posteriors * weights
        clips: FloatArray = weighted / weighted.sum(axis=1, keepdims=True)
        return clips

    def with_stride(self, stride_frames: int) -> "ModelCard":
        """A copy with another stride. Smoothing still covers the same time."""
        smoothing = round(self.decision.smoothing_windows * self.stride_frames / stride_frames)
        decision = replace(self.decision, smoothing_windows=max(1, smoothing))
        return replace(self, stride_frames=stride_frames, decision=decision)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Parse and check.

        Raises:
            ModelError: no JSON object, an unknown format, or a missing, unknown or wrong key.
        """
        try:
            data = parse_json(text, "its model card is not JSON")
        except ValueError as error:
            raise ModelError(str(error)) from None
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise ModelError(
                f"its model card has format {found!r:.40}, this kwsd reads {FORMAT}: "
                "export the model again, or install the kwsd that made it"
            )
        try:
            return build(cls, data)
        except ProblemsError as error:
            raise ModelError(f"its model card is wrong: {error}") from None

    def problems(self) -> list[str]:
        """Contradictions between the fields."""
        found = []
        if len(set(self.labels)) != len(self.labels):
            found.append("labels: one is used twice")
        if self.window_samples > _LONGEST_SECONDS * self.frontend.sample_rate_hz:
            found.append(f"window_frames, frontend: a window is longer than {_LONGEST_SECONDS:g} s")
        if not {self.silence, self.unknown} <= set(self.labels):
            found.append("labels: silence or unknown is missing")
        if set(self.decision.thresholds) != set(self.keywords):
            found.append("decision.thresholds: not the same as the keywords")
        rows = self.golden.posteriors
        if len(rows) > _MOST_GOLDEN:
            found.append(f"golden.posteriors: more than {_MOST_GOLDEN} windows")
        if not rows or any(len(row) != len(self.labels) for row in rows):
            found.append("golden.posteriors: no windows, or not a number for each label")
        return found


def golden_windows(seed: int, n_windows: int, window_frames: int, params: FrontendParams) -> FloatArray:
    """The input of the golden check: front-end output for seeded bursts of tones and noise.

    The random numbers are the fractional parts of n·φ and n²·φ, with φ the golden ratio (H. Weyl, 1916).
    No library can change them, so a model file stays valid for good. Because the windows pass
    through the front end, the check also finds a front end that has changed.

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
    """Fractional parts of multiples of the golden ratio."""
    fractions: NDArray[np.float64] = np.modf(numbers * ((np.sqrt(5) - 1) / 2))[0]
    return fractions
