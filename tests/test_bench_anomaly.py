import csv
import re

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import roc_auc_score

from audiotorch.bench import anomaly
from audiotorch.bench.anomaly import FRONTS, run_anomaly
from audiotorch.bench.faults import FAULTS, LEVELS_DB
from audiotorch.bench.results import anomaly_tables
from audiotorch.cli import main
from audiotorch.errors import ParameterError

RATE = 16000


def level_db(x: np.ndarray) -> float:
    return 10 * np.log10(np.mean(x**2))


@pytest.fixture
def clip() -> np.ndarray:
    return 0.05 * np.random.default_rng(5).standard_normal(3 * RATE)


@pytest.mark.parametrize("level", LEVELS_DB)
@pytest.mark.parametrize("fault", ["clicks", "whine", "hiss"])
def test_what_is_planted_has_the_level_stated_and_the_seed_decides(clip, fault, level):
    before = clip.copy()
    faulty = FAULTS[fault](clip, RATE, level, 3)
    assert level_db(faulty - clip) - level_db(clip) == pytest.approx(level, abs=1e-9)
    assert np.array_equal(clip, before)
    assert np.array_equal(faulty, FAULTS[fault](clip, RATE, level, 3))
    assert not np.array_equal(faulty, FAULTS[fault](clip, RATE, level, 4))


def test_the_level_drops_by_12_6_and_3_db(clip):
    for level, drop in zip(LEVELS_DB, (12, 6, 3), strict=True):
        lowered = FAULTS["level drop"](clip, RATE, level, 0)
        assert level_db(lowered) - level_db(clip) == pytest.approx(-drop, abs=1e-9)


def test_faults_sound_as_they_are_called(clip):
    spectra = {}
    for name in ("clicks", "whine", "hiss"):
        added = FAULTS[name](clip, RATE, 0, 1) - clip
        spectra[name] = np.abs(np.fft.rfft(added)) ** 2 / np.sum(np.abs(np.fft.rfft(added)) ** 2)
        frames = np.abs(added[: len(added) // 160 * 160]).reshape(-1, 160).max(axis=1)
        beats = np.count_nonzero((frames[1:] > 0.5 * frames.max()) & (frames[:-1] < frames[1:] / 2))
        assert (8 * 3 - 2 <= beats <= 30 * 3 + 1) == (name == "clicks")
    below = np.fft.rfftfreq(3 * RATE, 1 / RATE) < 1999
    assert spectra["hiss"][below].sum() < 1e-12
    assert np.sort(spectra["whine"])[-60:].sum() > 0.7  # lines
    assert np.sort(spectra["hiss"])[-60:].sum() < 0.05


@pytest.mark.parametrize("name", FRONTS)
def test_front_ends_take_a_second(name):
    front = FRONTS[name]()
    assert front(torch.randn(1, front.sample_rate)).isfinite().all()


def hearts(folder, n_normal, n_ill):
    """A beat of 0.8 s that is clear, or has its pauses filled."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for i in range(n_normal + n_ill):
        ill = i >= n_normal
        time = np.arange(8000 * 3) / 8000
        beat = np.sin(2 * np.pi * 120 * time) * (time % 0.8 < 0.07)
        noise = generator.standard_normal(len(time)) * (0.3 if ill else 0.01)
        soundfile.write(folder / f"{i:02}.wav", 0.2 * (beat + noise), 8000)
        rows.append({"file": f"{i:02}.wav", "anomaly": int(ill), "subject": i // 2})
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "anomaly", "subject"])
        writer.writeheader()
        writer.writerows(rows)


def test_hearts_that_differ_are_told_apart(tmp_path, monkeypatch, capsys):
    hearts(tmp_path / "heart_yaseen", 24, 6)
    (figures,) = run_anomaly(tmp_path)
    assert {row[0] for row in figures.rows.values()} == {"1.000"}
    assert "| `heart_rhythm` | `knn` | clip | 1.000 |" in anomaly_tables([figures])
    monkeypatch.setenv("AUDIOTORCH_DATA", str(tmp_path))
    assert main(["bench", "--anomaly", "heart_yaseen"]) == 0
    assert "heart_yaseen: the first two thirds" in capsys.readouterr().out


def test_the_auc_is_scikit_learns_with_ties():
    generator = np.random.default_rng(2)
    normals, anomalies = generator.integers(0, 9, 40), generator.integers(3, 12, 17)
    expected = roc_auc_score(np.repeat([0, 1], [40, 17]), np.concatenate([normals, anomalies]))
    assert anomaly._auc(normals, anomalies) == pytest.approx(expected, abs=1e-12)


def test_subjects_are_never_on_both_sides():
    subject = np.repeat([f"{i}" for i in range(13)], 3)
    folds = anomaly._fold_of(subject, seed=1)
    assert (folds.reshape(13, 3) == folds[::3, None]).all()
    assert sorted(np.bincount(folds[::3])) == [2, 2, 3, 3, 3]


def test_the_interval_holds_the_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(anomaly, "_BOOTSTRAP", 50)
    hearts(tmp_path / "heart_pascal_b", 24, 12)
    (figures,) = run_anomaly(tmp_path, ["heart_pascal_b"])
    for auc, interval in figures.rows.values():
        low, high = map(float, re.findall(r"[\d.]+", interval))
        assert low <= float(auc) <= high


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="holds none of esc10 heart_pascal_b heart_yaseen"):
        run_anomaly(tmp_path)
    hearts(tmp_path / "heart_yaseen", 3, 1)
    with pytest.raises(ParameterError, match="protocol='machine': must be one of heart_yaseen"):
        run_anomaly(tmp_path, ["machine"])
