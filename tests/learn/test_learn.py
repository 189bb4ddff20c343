"""`kwsd learn`: a made-up word, from recordings to events."""

import os
import re
import shutil

import numpy as np
import pytest
import soundfile

from kwsd.core.model import DEFAULT_MODEL, load_model
from kwsd.learn.pack import DEFAULT_PACK
from learn.voice import say, write_takes
from support import DEMO, ROOT, kwsd

OTHER = ((300, 800), (700, 1200), (300, 2200))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A model that has learnt "waio", and what the command said."""
    folder = tmp_path_factory.mktemp("learnt")
    takes = write_takes(folder / "me", 6)
    result = kwsd("learn", "waio", *takes, "-o", folder / "home.onnx")
    assert result.returncode == 0, result.stderr
    return folder / "home.onnx", result.stdout


def detections(model, *paths):
    result = kwsd("spot", "--model", model, *paths)
    assert result.returncode == 0, result.stderr
    return re.findall(r"s  (\w+) ", result.stdout)


def test_the_report_has_figures_with_intervals_and_a_threshold(learnt):
    _, report = learnt
    assert re.search(r"waio: learnt from 6 recordings, \d+ parameters", report)
    assert re.search(r"recognised when left out: [4-6] of 6 \(\d+% to 100%\)", report)
    assert re.search(
        r"false events: 0 in the 1\.\d h of .* the threshold was chosen \(0\.0 to \d\.\d an hour\)", report
    )
    assert re.search(r"threshold: 0\.[5-9]\d+", report)
    assert re.search(r"closest words and their highest scores: \w+ 0\.\d+", report)
    assert "note: only 6 recordings" in report


def test_an_unheard_voice_is_recognised_among_the_models_own_keywords(learnt, tmp_path):
    model, _ = learnt
    path = tmp_path / "new.wav"
    soundfile.write(path, np.pad(say(((700, 1100), (300, 2300), (450, 800)), 155, 0.65), 16000), 16000)
    assert detections(model, path) == ["waio"]
    assert detections(model, DEMO) == detections(DEFAULT_MODEL, DEMO)


def test_the_card_says_what_was_learnt_and_the_golden_check_covers_it(learnt):
    model, _ = learnt
    card, own = load_model(model, "cpu").card, load_model(None, "cpu").card
    assert card.labels == [*own.labels, "waio"]
    assert card.training["learnt"]["waio"]["recordings"] == 6
    assert np.shape(card.golden.posteriors) == (len(own.golden.posteriors), len(card.labels))
    np.testing.assert_allclose(np.array(card.golden.posteriors)[:, :-1], own.golden.posteriors, atol=1e-3)


def test_another_word_is_added_and_forgotten(learnt, tmp_path):
    model, _ = learnt
    takes = write_takes(tmp_path / "other", 5, OTHER)
    home = shutil.copy(model, tmp_path / "home.onnx")  # which is changed in place
    result = kwsd("learn", "oaei", takes[0], "--model", home, "-o", home)
    assert result.returncode == 1
    assert home.read_bytes() == model.read_bytes()
    assert kwsd("learn", "oaei", *takes, "--model", home, "-o", home).returncode == 0
    assert load_model(home, "cpu").card.labels[-2:] == ["waio", "oaei"]
    assert detections(home, takes[2]) == ["oaei"]
    result = kwsd("learn", "--forget", "oaei", "--model", home, "-o", home)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("keywords: yes, no, up, down, left, right, on, off, stop, go, waio\n")
    assert load_model(home, "cpu").card == load_model(model, "cpu").card


def test_two_words_are_learnt_at_once_and_only_leaves_the_other_keywords_out(tmp_path):
    takes, others = write_takes(tmp_path / "me", 4), write_takes(tmp_path / "other", 4, OTHER)
    words = ("waio", takes[0], "--only", *takes[1:], "oaei", *others)
    result = kwsd("learn", "-o", tmp_path / "home.onnx", *words)
    assert result.returncode == 0, result.stderr
    card = load_model(tmp_path / "home.onnx", "cpu").card
    assert card.labels == ["silence", "unknown", "waio", "oaei"]
    np.testing.assert_allclose(np.array(card.golden.posteriors)[:, :2].sum(axis=1), 1, atol=1e-4)
    assert detections(tmp_path / "home.onnx", takes[1], others[1], DEMO) == ["waio", "oaei"]
    result = kwsd("learn", "--forget", "waio,oaei", "--model", tmp_path / "home.onnx", "-o", tmp_path / "none.onnx")
    assert result.stderr.endswith("home.onnx: would have no keyword left\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["take.wav"], "take.wav: a recording without a word; write `kwsd learn WORD take.wav … -o MODEL`"),
        ([], "which word? write `kwsd learn WORD RECORDING… -o MODEL`"),
        (["computer"], "computer: no recordings; name files, or give --record, --from or --synthesise"),
        (["computer", "missing.wav"], "missing.wav: No such file or directory"),
        (["stop", "0.wav", "1.wav", "2.wav"], "stop: the model has this label already; take another"),
        (["waio", "0.wav"], "waio: needs 3 to 50 recordings, better 8 or more; there are 1"),
        (["waio", "0.wav", "copy.wav", "copy 2.wav"], "waio: needs 3 to 50 recordings, better 8 or more; there are 1"),
        (["a\nb", "0.wav", "1.wav", "2.wav"], "'a\\nb': no name for a word; take letters, without / and comma"),
        (["a,b", "0.wav", "1.wav", "2.wav"], "'a,b': no name for a word; take letters, without / and comma"),
        (["waio", "--record", "2"], "--record 2: record 3 to 50 takes"),
        (["waio", "--record", "3", "--source", "-"], "--source -: standard input is for the answers to prompts"),
        (["waio", "--forget", "b", "--model", "m"], "--forget: does nothing but forget; leave out the words and the o"),
        (
            ["waio", "0.wav", "--false-accepts-per-hour", "0"],
            "--false-accepts-per-hour 0: must be above 0 and below 10000",
        ),
        (["waio", "--nonsense", "0.wav"], "usage: kwsd [-h]"),
        (["--forget", "waio"], "--forget: name the model that has learnt the word, with --model"),
        (["waio", "0.wav", "1.wav", "2.wav", "--pack", "0.wav"], "0.wav: not a pack, or damaged; make one"),
        (["waio", "0.wav", "1.wav", "2.wav", "--pack", "empty"], "empty: not a pack, or damaged; make one"),
        (["waio", "0.wav", "1.wav", "2.wav", "--pack", "one.npy"], "one.npy: not a pack, or damaged; make one"),
        (["waio", "0.wav", "1.wav", "2.wav", "--pack", "none"], "none: no such pack; make one for this model with"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, arguments, message):
    write_takes(tmp_path, 3)
    for copy in ("copy.wav", "copy 2.wav"):
        shutil.copy(tmp_path / "0.wav", tmp_path / copy)
    (tmp_path / "empty").touch()
    np.save(tmp_path / "one.npy", np.zeros(9))
    before = set(tmp_path.iterdir())
    result = kwsd("learn", *arguments, "-o", "home.onnx", cwd=tmp_path)
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    line = result.stderr.splitlines()[0]
    assert len(result.stderr.splitlines()) == 1 or line.startswith("usage: ")
    assert line.removeprefix("kwsd: ").startswith(message.replace("\n", "\\n"))
    assert set(tmp_path.iterdir()) == before


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    result = kwsd("learn", "oaei", *write_takes(tmp_path / "o", 3, OTHER), "-o", tmp_path / "notes.txt")
    assert "already exists" in result.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_bundled_pack_is_small_and_names_its_recordings():
    assert DEFAULT_PACK.stat().st_size <= 6e6
    with np.load(DEFAULT_PACK) as file:
        assert "LibriSpeech" in str(file["attribution"])


def test_takes_are_recorded_after_prompts_and_repeated_on_request(tmp_path):
    for path in write_takes(tmp_path / "me", 3):
        samples, rate_hz = soundfile.read(path)
        soundfile.write(path, np.pad(samples, (0, rate_hz)), rate_hz)
    keys = "\n\n" + "\nr\n" + "\n\n" + "\n\n"  # Enter before each take, and after it: keep, repeat, keep, keep
    result = kwsd(
        *("learn", "waio", "--record", 3, "--source", tmp_path / "me" / "1.wav", "-o", tmp_path / "home.onnx"),
        input=keys,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("press Enter, then say “waio”") == 4
    assert re.search(r"#+ +-\d\d dBFS, \d\.\d s; Enter keeps it, r repeats it", result.stdout)
    assert "waio: learnt from 3 recordings" in result.stdout


def test_silent_takes_are_repeated_until_the_keyboard_ends(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(48000), 16000)
    result = kwsd(
        *("learn", "waio", "--record", 3, "--source", tmp_path / "silence.wav", "-o", tmp_path / "home.onnx"),
        input="\n\n",
    )
    assert result.returncode == 2
    assert result.stdout.count("is silent; is the microphone muted, or far away?") == 2
    assert "--record: needs a keyboard; standard input has ended" in result.stderr
    assert not (tmp_path / "home.onnx").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_word_is_learnt_from_a_synthesiser(tmp_path):
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    result = kwsd("learn", "computer", "--synthesise", "-o", tmp_path / "home.onnx", env=environment)
    assert result.returncode == 0, result.stderr
    assert "computer: learnt from 30 takes by espeak-ng" in result.stdout
    assert "note: spoken by espeak-ng alone" in result.stdout
    learnt = load_model(tmp_path / "home.onnx", "cpu").card.training["learnt"]["computer"]
    assert (learnt["recordings"], learnt["synthetic"]) == (0, {"takes": 30, "by": "espeak-ng"})


def test_without_a_synthesiser_its_name_is_given(tmp_path):
    environment = {"PATH": "/nowhere", "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": "/nowhere"}
    result = kwsd("learn", "computer", "--synthesise", "-o", tmp_path / "home.onnx", env=environment)
    assert result.stderr == "kwsd: no speech synthesiser: sudo apt-get install espeak-ng\n"
