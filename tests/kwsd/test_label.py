"""fname,label for every clip, whole or not at all, and a rerun goes on."""

import csv
import errno
import os
from pathlib import Path

import numpy as np
import pytest

import kwsd.label
from kwsd.audio import read_recording
from kwsd.errors import AudioError, OutputError
from kwsd.frontend import clip_features
from kwsd.label import Journal, find_clips, label_folder


@pytest.fixture
def clips(tmp_path, write_wav, demo, truth):
    """A folder of words cut from the bundled recording."""
    for index, word in enumerate(truth):
        start = int(word["start_seconds"] * 16000) - 3000
        write_wav(f"clips/{'ab'[index % 2]}/clip_{index:03}.wav", demo[start : start + 16000])
    return tmp_path / "clips"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_the_csv_is_exactly_as_kaggle_wants_it(clips, tmp_path, model, truth):
    output, scores = tmp_path / "submission.csv", tmp_path / "scores.csv"
    summary = label_folder(clips, output, model, scores)
    text = output.read_bytes()
    assert text.startswith(b"fname,label\nclip_000.wav,")
    assert b"\r" not in text
    header, *labelled = rows(output)
    assert [name for name, _ in labelled] == [f"clip_{i:03}.wav" for i in range(len(truth))]
    assert {label for _, label in labelled} <= set(model.card.labels)
    assert summary.counts.total() == len(truth)
    assert summary.unreadable == []
    header, *posteriors = rows(scores)
    assert header == ["fname", *model.card.labels]
    for (name, label), (same_name, *values) in zip(labelled, posteriors, strict=True):
        assert name == same_name
        assert model.card.labels[int(np.argmax(np.array(values, float)))] == label
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "scores.csv", "submission.csv"]


def test_words_are_recognised(clips, tmp_path, model, truth):
    label_folder(clips, tmp_path / "s.csv", model)
    said = [word["word"] for word in truth]
    right = [label == word for (_, label), word in zip(rows(tmp_path / "s.csv")[1:], said, strict=True)]
    keywords = [is_right for is_right, word in zip(right, said, strict=True) if word in model.card.keywords]
    assert sum(keywords) >= 8


def test_augment_is_the_mean_over_shifts_and_gains(clips, tmp_path, model):
    label_folder(clips, tmp_path / "plain.csv", model, tmp_path / "plain-scores.csv")
    label_folder(clips, tmp_path / "s.csv", model, tmp_path / "scores.csv", augment=True)
    assert rows(tmp_path / "scores.csv") != rows(tmp_path / "plain-scores.csv")
    samples, rate_hz = read_recording(next(clips.rglob("clip_000.wav")))
    quiet = np.zeros(960, np.float32)  # 60 ms
    earlier, later = np.concatenate([samples[960:], quiet]), np.concatenate([quiet, samples[:-960]])
    views = [samples, earlier, later, samples * np.float32(0.5), samples * np.float32(2)]
    card = model.card
    windows = np.stack([clip_features(view, rate_hz, card.window_frames, card.frontend) for view in views])
    want = card.clip_posteriors(model.posteriors(windows).mean(axis=0, keepdims=True))[0]
    np.testing.assert_allclose(np.array(rows(tmp_path / "scores.csv")[1][1:], float), want, atol=1e-5)


def test_unreadable_clips_are_named_and_the_others_labelled(clips, tmp_path, model, truth):
    (clips / "broken.wav").write_text("not audio")
    (clips / "empty.wav").touch()
    summary = label_folder(clips, tmp_path / "s.csv", model)
    assert sorted(str(error).split(":")[0].split("/")[-1] for error in summary.unreadable) == [
        "broken.wav",
        "empty.wav",
    ]
    assert len(rows(tmp_path / "s.csv")) == 1 + len(truth)


def test_other_rates_and_lengths_are_labelled_too(write_wav, tmp_path, model, noise):
    write_wav("clips/a.wav", noise[:3000], 8000)
    write_wav("clips/b.WAV", np.stack([noise, noise], axis=1), 44100)
    label_folder(tmp_path / "clips", tmp_path / "s.csv", model)
    assert [row[0] for row in rows(tmp_path / "s.csv")] == ["fname", "a.wav", "b.WAV"]


def test_an_interrupted_run_goes_on_and_gives_the_same(clips, tmp_path, model, truth, monkeypatch):
    label_folder(clips, tmp_path / "whole.csv", model)
    monkeypatch.setattr(kwsd.label, "_BATCH_CLIPS", 4)
    computed = []

    class Interrupted:
        card, path = model.card, model.path

        def posteriors(self, windows):
            if len(computed) == 2:
                raise KeyboardInterrupt
            computed.append(len(windows))
            return model.posteriors(windows)

    output = tmp_path / "s.csv"
    with pytest.raises(KeyboardInterrupt):
        label_folder(clips, output, Interrupted())
    assert not output.exists()
    with (tmp_path / "s.csv.journal").open("a") as journal:
        journal.write("clip_010.wav,0.1,0.")  # as a power cut leaves it
    computed = [0] * 10
    label_folder(clips, output, Interrupted())
    assert sum(computed) == len(truth) - 8
    assert output.read_text() == (tmp_path / "whole.csv").read_text()
    assert not (tmp_path / "s.csv.journal").exists()


def test_a_full_disk_leaves_no_output_and_says_so(clips, tmp_path, model, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "s.csv.journal"))

    monkeypatch.setattr(kwsd.label.Journal, "add", full)
    with pytest.raises(OutputError, match=r"s.csv.journal: cannot be written \(No space left on device\)"):
        label_folder(clips, tmp_path / "s.csv", model)
    assert not (tmp_path / "s.csv").exists()


def test_an_output_folder_that_is_missing_is_said_before_the_work(clips, tmp_path, model):
    with pytest.raises(OutputError, match=r"absent/s.csv: cannot be written; its folder"):
        label_folder(clips, tmp_path / "absent" / "s.csv", model)


def test_nothing_is_overwritten_that_is_no_earlier_output(clips, tmp_path, model):
    clip = next(clips.rglob("*.wav"))
    before = clip.read_bytes()
    for output, scores, reason in (
        (clip, None, "is one of the clips"),
        (clips, None, "is not a file"),
        (tmp_path / "s.csv", clips, "is not a file"),
        (tmp_path / "s.csv", tmp_path / "absent" / "p.csv", "cannot be written"),
        (tmp_path / "s.csv", tmp_path / "s.csv", "same file"),
    ):
        with pytest.raises(OutputError, match=reason):
            label_folder(clips, output, model, scores)
    assert clip.read_bytes() == before
    assert not (tmp_path / "s.csv").exists()


def test_a_journal_of_other_clips_is_not_taken_over(clips, tmp_path, model, write_wav, noise):
    name = next(clips.rglob("*.wav")).name
    write_wav(f"other/{name}", noise)
    for folder in ("clips", "other"):
        label_folder(tmp_path / folder, tmp_path / f"{folder}.csv", model)
    find = Journal(tmp_path / "s.csv.journal", model, find_clips(clips, []), 1)
    find.resume()
    find.add([name], [["0"] * 11 + ["1"]])
    label_folder(tmp_path / "other", tmp_path / "s.csv", model)
    assert rows(tmp_path / "s.csv") == rows(tmp_path / "other.csv")


def test_any_file_name_is_labelled(tmp_path, write_wav, noise, model):
    good = write_wav("clips/a b,c.wav", noise)
    good.with_name("new\nline.wav").write_bytes(good.read_bytes())
    Path(os.fsdecode(os.fsencode(good.parent) + b"/bad\xff.wav")).write_bytes(good.read_bytes())
    found = find_clips(tmp_path / "clips", [])
    journal = Journal(tmp_path / "s.csv.journal", model, found, 1)
    journal.resume()
    journal.add(list(found), [["0"] * 12] * 3)
    assert set(journal.resume()) == set(found)
    with (tmp_path / "s.csv.journal").open("a") as file:
        file.write('"new\n')  # cut off within a name
    assert set(journal.resume()) == set(found)
    journal.add(["later.wav"], [["0"] * 12])
    assert set(journal.resume()) == {*found, "later.wav"}
    label_folder(tmp_path / "clips", tmp_path / "s.csv", model)
    with (tmp_path / "s.csv").open(newline="", errors="surrogateescape") as file:
        names = {row[0] for row in csv.reader(file)}
    assert names == {"fname", "a b,c.wav", "new\nline.wav", os.fsdecode(b"bad\xff.wav")}


def test_clips_of_one_name_keep_their_folders(tmp_path, write_wav, noise):
    for name in ("yes/1.wav", "no/1.wav"):
        write_wav(f"clips/{name}", noise)
    assert list(find_clips(tmp_path / "clips", [])) == ["no/1.wav", "yes/1.wav"]


def test_a_folder_without_wavs_is_an_error(tmp_path):
    with pytest.raises(AudioError, match="no WAV files below it"):
        find_clips(tmp_path, [])
    with pytest.raises(AudioError, match="no such folder"):
        find_clips(tmp_path / "absent", [])
