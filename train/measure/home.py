"""A day at home: long quiet, conversations, hours of television, music; thirty keywords an hour.

Law: keywords are 5 to 25 dB louder than everything else, as from a person speaking to a device
across a room. The figures are those of a day with the model's own thresholds.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from kwsd.errors import TrainingError
from kwsd.learn import augment
from train.measure.streams import Streams, made_of, seed_of
from train.recordings.corpus import RATE_HZ
from train.recordings.material import Material
from train.recordings.scenes import Scene, Style, compose

_SCENE_SECONDS = 600.0
_ABOVE_DB = (5.0, 25.0)
_RARELY = (60.0, 180.0)  # seconds between keywords: thirty an hour
_MUSIC_DBFS = (-45.0, -25.0)


@dataclass(frozen=True, slots=True)
class Situation:
    """Part of a day. With `music`, music-like noise replaces the noise of the style."""

    hours_a_day: float
    style: Style
    music: bool = False


_ALONE = Style(
    keyword=1.0, other=0.0, cut=0.0, double=0.0, speech=0.0, close=0.0, long_pause=_RARELY,
    level_dbfs=(-40.0, -20.0), noise=1.0, snr_db=_ABOVE_DB, speed=0.0, reverb=0.3,
)  # fmt: skip
_CONVERSATION = Style(
    keyword=0.05, other=0.0, cut=0.0, double=0.0, speech=1.0, close=0.7, speech_seconds=(2.0, 8.0),
    level_dbfs=(-45.0, -30.0), keyword_above_db=_ABOVE_DB, noise=1.0, snr_db=(10.0, 30.0), speed=0.0, reverb=0.3,
)  # fmt: skip
_TELEVISION = Style(
    keyword=1.0, other=0.0, cut=0.0, double=0.0, speech=0.0, close=0.0, long_pause=_RARELY,
    level_dbfs=(-35.0, -20.0), voices=1.0, voices_snr_db=_ABOVE_DB, speech_seconds=(3.0, 15.0),
    noise=1.0, snr_db=(15.0, 35.0), speed=0.0, reverb=0.3,
)  # fmt: skip

SITUATIONS = {
    "quiet": Situation(15.0, _ALONE),
    "conversation": Situation(3.0, _CONVERSATION),
    "television": Situation(4.0, _TELEVISION),
    "music": Situation(2.0, _ALONE, music=True),
}


def day_at_home(material: Material, hours: float, seed: int) -> Streams:
    """Streams of every situation, together `hours` long, in the proportions of a day.

    Raises:
        TrainingError: the material has no speech without keywords, or no noise.
    """
    for what, recordings in (("speech", material.speech), ("noise", material.noises)):
        if not len(recordings):
            raise TrainingError(f"--home: a day at home has {what}; give recordings of it with --{what}")
    day = sum(one.hours_a_day for one in SITUATIONS.values())
    by_name = {}
    for name, situation in SITUATIONS.items():
        n_scenes = max(1, round(hours * situation.hours_a_day / day * 3600 / _SCENE_SECONDS))
        seeds = [(seed_of(seed, f"home {name}"), number) for number in range(n_scenes)]
        by_name[name] = [partial(_scene, material, situation, one) for one in seeds]
    return Streams(
        "home", seed, made_of(material), by_name, {name: one.hours_a_day for name, one in SITUATIONS.items()}
    )


def _scene(material: Material, situation: Situation, seeds: tuple[int, int]) -> Scene:
    random = np.random.default_rng(seeds)
    background = None
    if situation.music:
        level = 10 ** (random.uniform(*_MUSIC_DBFS) / 20)
        background = augment.music(round(_SCENE_SECONDS * RATE_HZ), RATE_HZ, random) * np.float32(level)
    return compose(material, situation.style, _SCENE_SECONDS, random, background)
