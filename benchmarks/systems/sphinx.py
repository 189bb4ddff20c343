"""pocketsphinx: ten keywords, a decision every 10 ms."""

from measure import measure

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")


def load():
    import tempfile

    from pocketsphinx import Decoder

    with tempfile.NamedTemporaryFile("w", suffix=".list") as file:
        file.writelines(f"{keyword} /1e-10/\n" for keyword in KEYWORDS)
        file.flush()
        decoder = Decoder(kws=file.name, lm=None, loglevel="FATAL")
    decoder.start_utt()

    def hear(chunk):
        decoder.process_raw(chunk)
        if decoder.hyp():
            decoder.end_utt()
            decoder.start_utt()

    return hear


measure(load, 1600)
