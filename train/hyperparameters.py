"""Every number that one may want to change in a training, each with its reason."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from kwsd.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Defaults are for the default model on a few tens of thousands of clips."""

    # One seed for the scenes, the initial weights and the order of windows.
    seed: int = 1
    # Every epoch has windows that were never seen before.
    epochs: int = 130
    windows_per_epoch: int = 40_000
    # Small enough to step often, large enough to keep two cores busy.
    batch_size: int = 256
    # Adam's, brought to 0 by a cosine.
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    label_smoothing: float = 0.0
    # The right label must win by so much, in logits.
    margin: float = 0.0
    # From each scene of 30 s; more would save time and repeat themselves.
    windows_per_scene: int = 120
    # Of a scene's windows.
    keyword_share: float = 0.4
    silence_share: float = 0.08
    # How many scenes are words and noise; in the others there is speech most of the time.
    word_scenes: float = 0.5
    # How many windows hold one clip as it was recorded: what `kwsd label` meets.
    lone_clips: float = 0.3
    # So much of an epoch are windows of unknown that the model takes for keywords, the worst of
    # so many times as many.
    mined_share: float = 0.0
    mined_from: float = 4.0
    # Lone clips are shifted so far, and so many of them have audible noise.
    shift_seconds: float = 0.1
    clip_noise: float = 0.6
    # Every scene is heard through a microphone of another colour, up to so much by band.
    colour_db: float = 4.0
    # So many microphones hear nothing above some pitch of the upper third.
    dull_share: float = 0.2
    # SpecAugment, for this share of the windows.
    mask_share: float = 0.4
    mask_frames: int = 8
    mask_bands: int = 5

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
        positive = ("epochs", "windows_per_epoch", "batch_size", "windows_per_scene")
        least = dict.fromkeys((field.name for field in fields(self)), 0.0) | dict.fromkeys(positive, 1)
        least["learning_rate"] = 1e-9
        wrong = [name for name, value in least.items() if not value <= getattr(self, name) < 1e9]
        shares = (
            "keyword_share",
            "silence_share",
            "word_scenes",
            "lone_clips",
            "mined_share",
            "clip_noise",
            "dull_share",
            "mask_share",
        )
        wrong += [name for name in shares if getattr(self, name) > 1]
        if self.keyword_share + self.silence_share >= 1:
            wrong.append("keyword_share + silence_share")
        if self.lone_clips >= 1:
            wrong.append("lone_clips")
        return wrong

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
