"""Porcupine 1.9.5 (closed source; the last version without a key): one word, or N_WORDS, a decision every 32 ms."""

import os
import struct

from measure import measure

N_WORDS = int(os.environ.get("N_WORDS", "1"))


def load():
    import pvporcupine

    porcupine = pvporcupine.create(keywords=sorted(pvporcupine.KEYWORDS)[:N_WORDS])
    return lambda chunk: porcupine.process(struct.unpack("512h", chunk))


measure(load, 512)
