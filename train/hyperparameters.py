"""Every number that one may want to change in a training, each with its reason."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from kwsd.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Defaults are for the light-weight CNN on a few tens of thousands of clips."""

    # One seed for the choice of clips, augmentation, initial weights and order of batches.
    seed: int = 1
    # An epoch is one variant's worth of windows (two minutes on two CPUs); the best is kept.
    epochs: int = 18
    # Small enough to step often on 20,000 clips, large enough to keep two cores busy.
    batch_size: int = 64
    # Adam's default; a cosine brings it to 0, which is worth more than a careful start.
    learning_rate: float = 1e-3
    # Every clip is prepared so often, each time shifted and noised anew: features are
    # computed once and cached, so variety must be bought with disk (32 KB a second).
    n_variants: int = 4
    # For each clip of an average keyword. The unknown words are ten times the keywords of
    # one class; all of them would make "unknown" the safe answer.
    unknown_ratio: float = 2.0
    # Cuts of keyword-free speech, for each clip of an average keyword, where there is some:
    # in a stream it is what the spotter hears most.
    speech_ratio: float = 1.0
    # Cuts of the noise recordings in each variant. The notebook makes 1000 of each of six.
    n_silence: int = 1500
    # Words in the data set lie near the middle; a stream shows them 100 ms to either side.
    shift_seconds: float = 0.1
    # Speakers near and far: gain between these.
    gain_low_db: float = -12.0
    gain_high_db: float = 6.0
    # How many of the clips get audible noise; all get at least a faint one.
    noise_probability: float = 0.5
    # Uniform signal-to-noise ratio of the audible noise: from a loud kitchen to a quiet room.
    snr_low_db: float = 5.0
    snr_high_db: float = 30.0

    def changed(self, assignments: list[str]) -> "Hyperparameters":
        """Apply `NAME=VALUE` strings.

        Raises:
            TrainingError: an unknown name, or a value of the wrong type or out of range.
        """
        kinds = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        changes: dict[str, Any] = {}
        for assignment in assignments:
            name, _, value = assignment.partition("=")
            if name not in kinds:
                raise TrainingError(f"--set {assignment}: no such hyper-parameter; there are {', '.join(kinds)}")
            try:
                changes[name] = kinds[name](value)
            except ValueError:
                raise TrainingError(f"--set {assignment}: {name} takes {kinds[name].__name__} values") from None
        changed = replace(self, **changes)
        if wrong := changed._out_of_range():
            raise TrainingError(f"--set: {', '.join(wrong)} out of range")
        return changed

    def _out_of_range(self) -> list[str]:
        least = {"seed": 0, "epochs": 1, "batch_size": 1, "n_variants": 1, "learning_rate": 1e-9}
        never_negative = ("unknown_ratio", "speech_ratio", "n_silence", "shift_seconds", "noise_probability")
        least |= dict.fromkeys(never_negative, 0)
        wrong = [name for name, value in least.items() if not value <= getattr(self, name) < 1e9]
        return wrong + (["noise_probability"] if self.noise_probability > 1 else [])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
