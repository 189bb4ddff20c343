"""pymicro-wakeword: one word, or N_WORDS, int8, streaming, a decision every 30 ms."""

import os

from measure import measure

N_WORDS = int(os.environ.get("N_WORDS", "1"))


def load():
    from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures, Model

    words = [MicroWakeWord.from_builtin(model) for model in list(Model)[:N_WORDS]]
    features = MicroWakeWordFeatures()

    def hear(chunk):
        return [word.process_streaming(frame) for frame in features.process_streaming(chunk) for word in words]

    return hear


measure(load, 160)
