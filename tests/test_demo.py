"""The synthetic corpus: the same samples each time, whole or absent, not solved by mean spectra."""

import json
from collections import Counter

import librosa
import numpy as np
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from audiotorch.data import demo
from audiotorch.data.demo import CLASSES, DemoDataModule, device_names, write_corpus
from audiotorch.errors import ParameterError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The corpus with 5 of its 9 takes."""
    module = DemoDataModule(tmp_path_factory.mktemp("demo") / "corpus", n_takes=5)
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture(scope="module")
def specgrams(data):
    """Log-mel spectrograms of the training and the test clips, by librosa."""

    def log_mel(waveform):
        power = librosa.feature.melspectrogram(
            y=waveform.numpy(), sr=demo.SAMPLE_RATE, n_fft=1024, hop_length=384, n_mels=48
        )
        return librosa.power_to_db(power)

    return [[log_mel(w) for w, _, _ in part] for part in (data.train_set, data.test_set)]


def test_the_module_splits_by_device(data):
    assert data.labels == sorted(CLASSES)
    assert len(CLASSES) >= 6
    names = device_names()
    assert {clip.group for clip in data.splits.test} == set(names[-2:])
    assert {clip.group for clip in data.splits.train + data.splits.val} == set(names[:-2])
    assert data.splits.validation == "group"
    assert not data.fixed_schedule
    assert len(data.splits.test) == len(CLASSES) * 2 * 5
    assert len(set(data.class_counts.tolist())) == 1


def test_files_are_as_described(data):
    clips = data.splits.train[::20] + data.splits.test[::20]
    for clip in clips:
        about = soundfile.info(clip.path)
        assert (about.format, about.samplerate, about.channels) == ("FLAC", 16000, 1)
        assert 0.8 < about.duration < 1.8
        assert clip.path.name.startswith(f"{clip.label}_{clip.group}_")


@pytest.mark.parametrize("average", ["mean of decibels", "decibels of mean"])
def test_mean_spectra_do_not_tell_the_classes(data, specgrams, average):
    def vector(specgram):
        if average == "mean of decibels":
            return specgram.mean(axis=1)
        return librosa.power_to_db(librosa.db_to_power(specgram).mean(axis=1))

    train, test = ([vector(specgram) for specgram in part] for part in specgrams)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500))
    model.fit(train, data.train_set.targets)
    # Chance is 1/8.
    assert model.score(test, data.test_set.targets) < 0.4


def test_spectrograms_tell_the_classes_on_unseen_devices(data, specgrams):
    def images(part):
        rows = [torch.from_numpy((s - s.mean()) / 16) for s in part]
        widest = max(row.shape[1] for row in rows)
        rows = [nn.functional.pad(row, (0, widest - row.shape[1])) for row in rows]
        return torch.stack(rows).unsqueeze(1)

    def block(n_in, n_out):
        conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2))

    torch.manual_seed(0)
    net = nn.Sequential(
        *[block(i, o) for i, o in ((1, 8), (8, 16), (16, 32), (32, 64))],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, len(CLASSES)),
    )
    train, target = images(specgrams[0]), data.train_set.targets
    epochs, batch = 12, 24
    rounds = len(train) // batch
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=epochs * rounds)
    for _ in range(epochs):
        for rows in torch.randperm(len(train))[: rounds * batch].view(rounds, batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(train[rows]), target[rows]).backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        answers = net(images(specgrams[1])).argmax(dim=1)
    assert (answers == data.test_set.targets).float().mean() >= 0.95


def test_every_course_visits_all_pitches_alike():
    rng = np.random.default_rng(0)
    time = np.arange(48000) / 48000
    for label in CLASSES:
        histogram, _ = np.histogram(demo._course(label, time, rng), bins=8, range=(0, 1))
        assert np.abs(histogram / 6000 - 1).max() < 0.01, label


def test_the_same_settings_give_the_same_samples(tmp_path):
    first = write_corpus(tmp_path / "a", n_devices=2, n_takes=1)
    second = write_corpus(tmp_path / "b", n_devices=2, n_takes=1)
    other = write_corpus(tmp_path / "c", seed=1, n_devices=2, n_takes=1)
    assert Counter(clip.label for clip in first) == dict.fromkeys(CLASSES, 2)
    for one, two, three in zip(first, second, other, strict=True):
        assert one.path.name == two.path.name == three.path.name
        assert one.path.read_bytes() == two.path.read_bytes()
        assert one.path.read_bytes() != three.path.read_bytes()


def test_a_written_corpus_is_kept_and_another_is_replaced(tmp_path):
    root = tmp_path / "corpus"
    first = write_corpus(root, n_devices=2, n_takes=1)
    before = first[0].path.stat().st_mtime_ns
    assert write_corpus(root, n_devices=2, n_takes=1) == first
    assert first[0].path.stat().st_mtime_ns == before
    assert len(write_corpus(root, n_devices=2, n_takes=2)) == 2 * len(first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    real, calls = demo.save, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) > 5:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(demo, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "corpus", n_devices=2, n_takes=1)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_write_at_once(tmp_path, monkeypatch):
    root = tmp_path / "corpus"
    real, calls = demo.save, []

    def overtaken(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            write_corpus(root, n_devices=2, n_takes=1)
        real(*arguments)

    monkeypatch.setattr(demo, "save", overtaken)
    assert len(write_corpus(root, n_devices=2, n_takes=1)) == 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ParameterError, match="must be empty or hold the demo corpus"):
        write_corpus(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ParameterError, match="must be a folder; it is a file"):
        write_corpus(tmp_path / "thesis.txt")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "corpus.json").write_text(json.dumps({"corpus": "birds"}))
    with pytest.raises(ParameterError, match="it holds something else"):
        write_corpus(tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_devices": 1}, "n_devices=1: must be from 2 to 99"),
        ({"n_takes": 0}, "n_takes=0: must be from 1"),
        ({"seed": -1}, "seed=-1: must be from 0"),
    ],
)
def test_corpus_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ParameterError, match=message):
        write_corpus(tmp_path / "corpus", **settings)
    assert not (tmp_path / "corpus").exists()


def test_the_module_refuses_other_recordings(tmp_path):
    with pytest.raises(ParameterError, match="the demo has its own corpus; take data=default"):
        DemoDataModule(tmp_path, manifest="labels.csv")
