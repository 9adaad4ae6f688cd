"""The synthetic machines: spectra are those of their faults, which a simple detector finds."""

import csv
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audiotorch.data import machines
from audiotorch.data.machines import (
    FAULTS,
    MACHINES,
    SAMPLE_RATE,
    SEVERITIES,
    MachineDataModule,
    synthesize,
    write_machines,
)
from audiotorch.errors import ParameterError


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_machines(tmp_path_factory.mktemp("machines") / "corpus")


@pytest.fixture(scope="module")
def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table_lists_what_is_there(table, rows):
    assert sorted(row["file"] for row in rows) == sorted(
        path.relative_to(table.parent).as_posix() for path in table.parent.rglob("*.wav")
    )
    assert [row["label"] for row in rows].count("normal") == 60
    assert [row["label"] for row in rows].count("anomaly") == 27
    kinds = {(row["machine"], row["fault"], row["severity"]) for row in rows if row["fault"]}
    assert kinds == {(m, f, s) for m in MACHINES for f in FAULTS for s in SEVERITIES}
    assert len({row["recording"] for row in rows}) == len(rows)
    for row in rows:
        assert row["file"].startswith(f"{row['machine']}/{row['label']}/{row['recording']}")


def test_no_recording_clips_or_is_silent(table, rows):
    for row in rows:
        samples, rate = soundfile.read(table.parent / row["file"], always_2d=True)
        assert (rate, samples.shape) == (16000, (48000, 1))
        assert 0.02 < np.sqrt(np.mean(samples**2)) < np.abs(samples).max() < 0.99


def line_db(x: np.ndarray, frequency: float) -> float:
    """Power about a frequency, within 2 %, over the median of its surroundings, in dB."""
    frequencies, power = scipy.signal.welch(x, SAMPLE_RATE, nperseg=1 << 15)
    distance = np.abs(frequencies / frequency - 1)
    return 10 * np.log10(power[distance < 0.02].max() / np.median(power[distance < 0.4]))


@pytest.mark.parametrize("machine", MACHINES)
def test_faults_are_heard_where_they_should_be(machine):
    kind = MACHINES[machine]
    healthy = synthesize(machine, 3)
    faulty = {fault: synthesize(machine, 3, fault=fault) for fault in FAULTS}
    # Clicks: the envelope of the band where the housing rings has a line at their rate.
    band = scipy.signal.butter(
        4, [kind.ring - 600, kind.ring + 600], "band", fs=16000, output="sos"
    )
    rate = kind.clicks * kind.speed

    def envelope(x: np.ndarray) -> np.ndarray:
        return np.abs(scipy.signal.hilbert(scipy.signal.sosfiltfilt(band, x)))

    assert line_db(envelope(faulty["bearing"]), rate) > line_db(envelope(healthy), rate) + 6
    # Imbalance: more of the tone once a turn, and of it in the envelope of everything.
    for part in (lambda x: x, envelope):
        grown = line_db(part(faulty["imbalance"]), kind.speed) - line_db(part(healthy), kind.speed)
        assert grown > 3

    def level_db(x: np.ndarray, low: float, high: float) -> float:
        frequencies, power = scipy.signal.welch(x, SAMPLE_RATE, nperseg=1024)
        return 10 * np.log10(power[(frequencies > low) & (frequencies < high)].mean())

    # Leak: a hiss, and nothing else.
    leak = faulty["leak"]
    assert level_db(leak, 4700, 7300) > level_db(healthy, 4700, 7300) + 8
    assert level_db(leak, 100, 4000) == pytest.approx(level_db(healthy, 100, 4000), abs=0.2)


@pytest.mark.parametrize("fault", FAULTS)
def test_severities_grow(fault):
    healthy = synthesize("fan", 0)
    faults = [synthesize("fan", 0, fault=fault, severity=s) - healthy for s in SEVERITIES]
    levels = [np.sqrt(np.mean(x**2)) for x in faults]
    assert levels[0] > 0
    assert levels == sorted(levels)


def test_a_simple_detector_finds_the_faults(table, rows):
    """An isolation forest on the mean and spread of 64 mel bands, by librosa."""
    vectors = []
    for row in rows:
        samples, rate = soundfile.read(table.parent / row["file"])
        mel = librosa.feature.melspectrogram(y=samples, sr=rate, n_fft=1024, n_mels=64)
        specgram = librosa.power_to_db(mel)
        vectors.append(np.concatenate([specgram.mean(axis=1), specgram.std(axis=1)]))
    x = np.array(vectors)
    label = np.array([row["label"] == "anomaly" for row in rows])
    normal = np.flatnonzero(~label)
    test = np.concatenate([normal[::4], np.flatnonzero(label)])
    forest = IsolationForest(n_estimators=300, random_state=0)
    model = make_pipeline(StandardScaler(), PCA(0.95, random_state=0), forest)
    model.fit(x[np.setdiff1d(normal, normal[::4])])
    score = -model.score_samples(x)
    assert roc_auc_score(label[test], score[test]) >= 0.9
    severity = np.array([row["severity"] for row in rows])
    by_severity = [
        roc_auc_score(label[part], score[part])
        for name in ("mild", "severe")
        for part in [[i for i in test if severity[i] in ("", name)]]
    ]
    assert by_severity[0] < by_severity[1]
    assert by_severity[1] > 0.95


def test_same_settings_give_the_same_samples(tmp_path):
    one, two, other = (
        write_machines(tmp_path / name, seed, n_normal=2, n_faulty=0)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    name = "pump/normal/pump_normal_001.wav"
    samples = [(table.parent / name).read_bytes() for table in (one, two, other)]
    assert samples[0] == samples[1] != samples[2]
    before = one.stat().st_mtime_ns
    assert write_machines(one.parent, n_normal=2, n_faulty=0).stat().st_mtime_ns == before
    assert len(list(write_machines(one.parent, n_normal=3, n_faulty=0).parent.rglob("*.wav"))) == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def failing(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(machines, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        write_machines(tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


def test_data_module_for_a_detector(table, rows):
    data = MachineDataModule(table.parent)
    data.for_detection(lambda _: 19)
    data.prepare_data()
    data.setup()
    assert {clip.label for clip in data.splits.train + data.splits.val} == {"normal"}
    assert [clip.label for clip in data.splits.test].count("anomaly") == 27
    assert len(data.splits.val) == 19
    assert {clip.machine for clip in data.splits.test} == set(MACHINES)


def test_what_does_not_fit_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ParameterError, match="must be empty or hold the machine corpus"):
        write_machines(tmp_path)
    with pytest.raises(ParameterError, match="n_normal=1: must be from 2 to 999, whole"):
        write_machines(tmp_path / "corpus", n_normal=1)
    with pytest.raises(ParameterError, match=r"manifest='x\.csv': must be left out"):
        MachineDataModule(tmp_path, manifest="x.csv")
