"""The truth: which word each window of a scene holds.

Law: a window has the word that ended last in it, if it contains all of that word, and the word ended
at most half a second ago. Part of a word, and continuing speech, is `unknown`. A window is ambiguous,
and does not count, if it contains nearly all of a word, or a whole one that ended earlier.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kwsd.core.rows import IntArray
from train.recordings.corpus import RATE_HZ
from train.recordings.scenes import Scene, Spoken

AMBIGUOUS = -1

_DECIDED_SECONDS = 0.5  # a word must have been decided this long after its end
_NOT_QUITE = 0.15  # share of a word: without its last 15 % it may already be recognisable
_EDGE, _EDGE_SECONDS = 0.3, 0.1  # share and length of a word: so little of it is not recognisable


def words_in_windows(scene: Scene, n_windows: int, hop: int, n_samples: int, n_labels: int) -> IntArray:
    """The word of each window of a scene.

    Args:
        n_windows, hop, n_samples: windows begin every `hop` samples and have `n_samples`.
        n_labels: the last two labels are silence and unknown.

    Shape: -> (n_windows,), index into the material's words, or AMBIGUOUS.
    """
    silence, unknown = n_labels - 2, n_labels - 1
    starts = np.arange(n_windows) * hop
    places = [_Places.of(said, starts, starts + n_samples) for said in scene.spoken]
    background = np.full(n_windows, silence)
    for place in places:
        background[place.some] = unknown
    words = background.copy()
    for said, place in zip(scene.spoken, places, strict=True):
        if said.word != unknown:  # every part of speech is unknown
            words[place.ended] = background[place.ended]  # the word before it is over
            words[place.most] = AMBIGUOUS
            words[place.all] = said.word
    for said, place in zip(scene.spoken, places, strict=True):
        if said.word < silence:  # a word that closely follows a keyword does not replace it
            words[place.all] = said.word
            words[place.most & ~place.ended] = AMBIGUOUS
    return words


class _Places(NamedTuple):
    """How windows lie on a word. Each attribute has shape (n_windows,), bool.

    Attributes:
        some: the window contains more of the word than its edges.
        most: the window contains nearly all of it: the word has not quite ended, or its beginning
            has just left the window, or it ended too long ago to be decided now.
        all: the window contains the whole word, which has just ended.
        ended: the word ends before the window does.
    """

    some: NDArray[np.bool_]
    most: NDArray[np.bool_]
    all: NDArray[np.bool_]
    ended: NDArray[np.bool_]

    @classmethod
    def of(cls, said: Spoken, starts: IntArray, ends: IntArray) -> Self:
        duration = said.end - said.start
        ended = ends >= said.end
        overlap = np.minimum(ends, said.end) - np.maximum(starts, said.start)
        nearly_ended = ~ended & (ends >= said.end - _NOT_QUITE * duration)
        just_now = ends <= said.end + _DECIDED_SECONDS * RATE_HZ
        return cls(
            some=overlap > min(_EDGE * duration, _EDGE_SECONDS * RATE_HZ),
            most=nearly_ended | ended & (starts <= said.start + _EDGE * duration),
            all=ended & just_now & (starts <= said.start),
            ended=ended,
        )
