"""Every number that one may want to change in a training, each with its reason."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from kwsd.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Defaults are for the default model on a few tens of thousands of clips."""

    # One seed for the scenes, the initial weights and the order of windows.
    seed: int = 1
    # Every epoch has scenes of 30 s that were never heard before. In one stretch, 150 epochs label clips better
    # (0.971 for 0.962), but miss more keywords in streams at one false accept an hour (41 and 42 % for 29 and 37 %).
    epochs: int = 80
    # Then so often the learning rate begins anew, for so many epochs; the last time the network learns what it said
    # at the ends before. A third restart changes nothing. Missed at one false accept an hour among words and in
    # speech, all with voices (below): 27 and 39 %; after 60 and two times 30 epochs, 30 and 28 %; by a network that
    # learns in 30 epochs from two that learnt apart for 60 each, 26 and 37 %.
    restarts: int = 2
    restart_epochs: int = 40
    scenes_per_epoch: int = 300
    # So many seconds of audio for a step: small enough to step often, yet some of every keyword.
    batch_seconds: int = 120
    # Muon's and Adam's, brought to 0 by a cosine. Muon bears, and wants, more than Adam.
    learning_rate: float = 1e-2
    weight_decay: float = 1e-3
    # Flattens the scores just where thresholds lie: what 0.1 costs in streams is in docs/RESULTS.md.
    label_smoothing: float = 0.0
    # The right label must win by so much, in logits. 3 where it is no keyword, for 8 epochs more, missed 35 for 32 %
    # among words and 33 for 34 % in speech.
    margin: float = 0.0
    # How much a window of a keyword counts, and one of a lone clip: there are fewer of them.
    keyword_weight: float = 2.0
    clip_weight: float = 8.0
    # How many scenes are words and noise; in the others there is speech most of the time.
    word_scenes: float = 0.5
    # In how many of both kinds somebody else speaks all the time, more softly. What 0.25 of them gives and takes is in
    # docs/RESULTS.md: a television hides fewer keywords, people who speak hide more.
    voices: float = 0.0
    # How many scenes are clips as they were recorded: what `kwsd label` meets. From clips alone a network learns to
    # label better, and to hear streams worse (docs/RESULTS.md).
    lone_clips: float = 0.25
    # Lone clips are shifted so far, and so many of them have audible noise.
    shift_seconds: float = 0.1
    clip_noise: float = 0.6
    # Every scene is heard through so many microphones, since composing costs as much as training;
    # each has a gain and a colour of its own, up to so much by band. Vocal tracts up to 10 % longer or shorter, and
    # tempo up to 15 % faster or slower, were tried: as many keywords missed, or more (29.6 for 29.9 % at one false
    # accept an hour among words, 33.3 for 28.2 % in speech).
    microphones: int = 2
    gain_db: float = 5.0
    colour_db: float = 3.0
    # So many microphones hear nothing above some pitch of the upper third.
    dull_share: float = 0.1
    # SpecAugment, for this share of the stretches. Little: the network is too small to learn by heart.
    mask_share: float = 0.2
    mask_frames: int = 8
    mask_bands: int = 5

    @property
    def n_epochs(self) -> int:
        """Of all stages."""
        return self.epochs + self.restarts * self.restart_epochs

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
            raise TrainingError(f"--set: {'; '.join(wrong)}")
        return changed

    def _out_of_range(self) -> list[str]:
        limits = {field.name: (0.0, 1e9) for field in fields(self)}
        counts = ("epochs", "restart_epochs", "scenes_per_epoch", "batch_seconds", "microphones")
        limits |= dict.fromkeys(counts, (1, 1e9))
        limits |= dict.fromkeys(("learning_rate", "keyword_weight", "clip_weight"), (1e-9, 1e9))
        shares = ("word_scenes", "voices", "lone_clips", "clip_noise", "dull_share", "mask_share", "label_smoothing")
        limits |= dict.fromkeys(shares, (0.0, 1.0))
        limits["margin"] = (0.0, 100.0)  # of which the loss takes the exponential
        return [
            f"{name}={getattr(self, name):g} is not between {least:g} and {most:g}"
            for name, (least, most) in limits.items()
            if not least <= getattr(self, name) <= most
        ]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
