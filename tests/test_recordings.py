"""The bundled model on real speech. Skipped, with a reason, where the recordings are missing."""

import io
import tarfile

import numpy as np
import pytest
import soundfile

from kwsd.commands.label import label_corpus
from kwsd.corpus.folder import Folder
from support import ROOT
from train.measure.clips import labels_of
from train.recordings.corpus import find_corpus, split_by_speaker
from train.recordings.features import held_out_examples

SPEECH = ROOT.parent / "shared" / "speech"

pytestmark = pytest.mark.skipif(not SPEECH.is_dir(), reason=f"no recordings in {SPEECH}")


@pytest.fixture(scope="module")
def validation_folder(tmp_path_factory):
    """The validation speakers' clips and the noise, as WAVs in the official layout."""
    folder = tmp_path_factory.mktemp("speech")
    for group in ("speech_commands", "reconstructed", "noise"):
        for packed in sorted((SPEECH / group).glob("*.tar")):
            if packed.stem != "everyday":
                unpack(packed, folder / packed.stem)
    clips = sorted(path.relative_to(folder).as_posix() for path in folder.glob("[!_]*/*.wav"))
    (folder / "validation_list.txt").write_text("\n".join(clips))
    return folder


def unpack(packed, folder):
    with tarfile.open(packed) as tar:
        for member in tar:
            path = folder / member.name.replace(".opus", ".wav")
            if "_background_noise_" in str(folder) or split_by_speaker(path.name) == "validation":
                samples, rate_hz = soundfile.read(io.BytesIO(tar.extractfile(member).read()), dtype="int16")
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, samples, rate_hz, subtype="PCM_16")


@pytest.mark.slow
def test_the_model_recognises_twelve_classes_of_unseen_speakers(validation_folder, model):
    corpus = find_corpus(validation_folder)
    examples = held_out_examples(corpus, "validation", model.card.frontend)
    heard = labels_of(model, examples)
    accuracy = float(np.mean(heard == examples.y))
    assert accuracy >= 0.92
    for index, name in enumerate(model.card.labels):
        assert np.mean(heard[examples.y == index] == index) >= 0.75, name


@pytest.mark.slow
def test_label_agrees_with_the_evaluation_on_real_clips(validation_folder, model, tmp_path):
    clips = sorted((validation_folder / "stop").glob("*.wav"))
    summary = label_corpus(Folder(validation_folder / "stop"), tmp_path / "s.csv", model)
    assert summary.counts.total() == len(clips)
    assert summary.counts["stop"] / len(clips) >= 0.8
