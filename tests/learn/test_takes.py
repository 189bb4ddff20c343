"""Takes: cut to the word, or one line that names the recording."""

import numpy as np
import pytest
import soundfile

from kwsd.errors import AudioError, LearnError
from kwsd.learn.takes import read_take
from learn.voice import WA_I_O, say


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100])
def test_a_recording_of_any_rate_is_cut_to_the_word(tmp_path, rate_hz):
    path = tmp_path / "take.wav"
    soundfile.write(path, say(WA_I_O, 140, 0.6, rate_hz), rate_hz)
    take = read_take(path)
    assert 0.5 < take.seconds < 0.8
    assert take.note == ""


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(16000), "is silent; is the microphone muted, or far away"),
        (np.full(16000, 0.1), "is silent"),
        (np.eye(1, 16000, 8000)[0] * 0.5, "which is no word; record it again"),
        (0.1 * np.sin(np.arange(1600)), "which is no word; record it again"),
        (np.tile(say(WA_I_O, 140, 0.6), 8), "lasts 13 s; a recording of a word may last 10 s"),
    ],
)
def test_what_holds_no_word_is_refused_by_name(tmp_path, samples, message):
    path = tmp_path / "take.wav"
    soundfile.write(path, samples, 16000)
    with pytest.raises(LearnError, match=rf"take\.wav: .*{message}"):
        read_take(path)


def test_a_truncated_recording_is_refused(tmp_path):
    path = tmp_path / "take.wav"
    soundfile.write(path, say(WA_I_O, 140, 0.6), 16000)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(AudioError, match="truncated"):
        read_take(path)


def test_a_clipped_recording_and_one_without_pauses_have_a_note(tmp_path):
    path = tmp_path / "take.wav"
    soundfile.write(path, np.clip(say(WA_I_O, 140, 0.6) * 20, -1, 1), 16000)
    assert read_take(path).note == "too loud for the microphone"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 48000), 16000)
    take = read_take(path)
    assert take.note == "no pause around the word, so its loudest 1.2 s were taken"
    assert take.seconds == pytest.approx(1.3, abs=0.01)
