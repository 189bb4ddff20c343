"""Every number that a user may want to change in a training, each with its reason."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from kwsd.errors import TrainingError
from kwsd.typed import Between, ProblemsError, build, parse_json, unknown_key

_Count = Annotated[int, Between(1, 1e9)]
_Share = Annotated[float, Between(0, 1)]
_Positive = Annotated[float, Between(0, 1e9, above=True)]
_NotNegative = Annotated[float, Between(0, 1e9)]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The defaults are for the default model on a few tens of thousands of clips."""

    # One seed for the scenes, the initial weights and the order of windows.
    seed: Annotated[int, Between(0, 1e9)] = 1
    # Every epoch has new scenes of 30 s. Without restarts, 150 epochs label clips better (0.971 against 0.962), but
    # miss more keywords in streams at one false accept an hour (41 and 42 % against 29 and 37 %).
    epochs: _Count = 80
    # The learning rate then restarts this often, for this many epochs. In the last restart the network learns the mean
    # posteriors of the networks at the earlier ends. A third restart changes nothing (RESULTS.md has none and two).
    restarts: Annotated[int, Between(0, 100)] = 2
    restart_epochs: _Count = 40
    scenes_per_epoch: _Count = 300
    # Seconds of audio in a batch: small enough for many steps, large enough to contain every keyword.
    batch_seconds: _Count = 120
    # For Muon and Adam, reduced to 0 by a cosine. Muon tolerates, and needs, a higher rate than Adam.
    learning_rate: _Positive = 1e-2
    weight_decay: _NotNegative = 1e-3
    # Smoothing flattens the scores just where thresholds lie; docs/RESULTS.md shows what 0.1 costs in streams.
    label_smoothing: _Share = 0.0
    # The true label must win by this many logits. A margin of 3 for windows without a keyword, for 8 more epochs,
    # missed 35 against 32 % among words and 33 against 34 % in speech.
    margin: Annotated[float, Between(0, 100)] = 0.0
    # Weights of a window with a keyword, and of a lone clip: both are rarer than other windows. Networks that learn
    # from one window at a time draw each scene's windows by the first, and ignore the second.
    keyword_weight: _Positive = 2.0
    clip_weight: _Positive = 8.0
    # Share of scenes with words and noise; the others have speech most of the time.
    word_scenes: _Share = 0.5
    # Share of both kinds with another speaker throughout, at a lower level. docs/RESULTS.md shows the effect of 0.1 and
    # 0.25: fewer misses beside a television, more misses among people who speak.
    voices: _Share = 0.0
    # Share of scenes that are single clips, one a second, as `kwsd label` gets them. A network trained on clips alone
    # labels better and misses more in streams (docs/RESULTS.md).
    lone_clips: _Share = 0.25
    # Largest shift of lone clips, and the share of them with audible noise.
    shift_seconds: Annotated[float, Between(0, 1)] = 0.1
    clip_noise: _Share = 0.6
    # Microphones that record every scene, because composing a scene costs as much as training on it. Each has its own
    # gain, and a frequency response that varies by up to colour_db. Vocal tracts up to 10 % longer or shorter, and
    # tempo up to 15 % faster or slower, were tried: they missed as many keywords, or more (29.6 against 29.9 % at one
    # false accept an hour among words, 33.3 against 28.2 % in speech).
    microphones: _Count = 2
    gain_db: _NotNegative = 5.0
    colour_db: _NotNegative = 3.0
    # Share of microphones that lose all bands above a random one in the upper third.
    dull_share: _Share = 0.1
    # SpecAugment, for this share of the stretches. A small share: the network is too small to memorise.
    mask_share: _Share = 0.2
    mask_frames: Annotated[int, Between(0, 1000)] = 8
    mask_bands: Annotated[int, Between(0, 1000)] = 5

    @property
    def n_epochs(self) -> int:
        """Epochs of all stages."""
        return self.epochs + self.restarts * self.restart_epochs

    def changed(self, assignments: list[str]) -> "Hyperparameters":
        """Apply `NAME=VALUE` strings.

        Raises:
            TrainingError: an unknown name, or a value of the wrong type or out of range.
        """
        values = self.to_dict()
        for assignment in assignments:
            name, _, text = assignment.partition("=")
            if name not in values:
                raise TrainingError(f"--set {unknown_key(name, name, values)}")
            values[name] = _parse(text)
        try:
            return build(Hyperparameters, values)
        except ProblemsError as error:
            raise TrainingError(f"--set {error}") from None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _parse(text: str) -> object:
    """A number, or the text itself, which no hyper-parameter accepts."""
    try:
        return parse_json(text, "no number")
    except ValueError:
        return text
