"""The article's detector, against its own code with librosa."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from conftest import table
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import StandardScaler
from test_recipes import RATE, article_summary, librosa_load, write

from audiotorch import recipes
from audiotorch.bench.threads import threads
from audiotorch.errors import DecodeError, ParameterError

# --- the article's code ---------------------------------------------------------------------------


def article_vector(file: Path, sr: int = RATE) -> np.ndarray:
    y = librosa_load(file, sr)
    return article_summary(np.pad(y, (0, max(0, round(0.5 * sr) - len(y)))), sr)


def article_detector(vectors: np.ndarray, contamination: float = 0.05) -> dict[str, Any]:
    scaler = StandardScaler()
    scaled = scaler.fit_transform(vectors)
    pca = PCA(n_components=min(50, *vectors.shape), random_state=42)
    reduced = pca.fit_transform(scaled)
    detector = IsolationForest(n_estimators=100, contamination=contamination, random_state=42)
    detector.fit(reduced)
    return {"detector": detector, "scaler": scaler, "pca": pca, "sr": RATE}


def article_scores(info: dict[str, Any], vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reduced = info["pca"].transform(info["scaler"].transform(vectors))
    return info["detector"].decision_function(reduced), info["detector"].predict(reduced) == -1


# --- recordings -----------------------------------------------------------------------------------


class Case(NamedTuple):
    normal: list[Path]  # the detector is built of
    others: list[Path]
    vectors: np.ndarray  # the article's, of both


@pytest.fixture(scope="module", params=["machine_sounds", "heart_yaseen", "esc10"])
def case(request: pytest.FixtureRequest, data_root: Path) -> Case:
    root = data_root / request.param
    rows = table(root / "labels.csv")
    column, value = {
        "machine_sounds": ("machine_id", "dcase2020_id_00"),
        "heart_yaseen": ("anomaly", "0"),
        "esc10": ("class_name", "Rain"),
    }[request.param]
    normal = [root / row["file"] for row in rows if row[column] == value]
    others = [root / row["file"] for row in rows if row[column] != value]
    others = others[:: len(others) // 12][:12]
    files = normal[:30] + others
    return Case(normal[:24], normal[24:30] + others, np.stack([article_vector(f) for f in files]))


def test_scores_of_one_fitted_detector_are_the_articles(case):
    info = article_detector(case.vectors[: len(case.normal)])
    scores, verdicts = article_scores(info, case.vectors)
    found = [recipes.score_audio_anomaly(info, file) for file in case.normal + case.others]
    np.testing.assert_allclose([each["score"] for each in found], scores, atol=1e-4, rtol=0)
    assert [each["is_anomaly"] for each in found] == verdicts.tolist()


def test_each_fitted_on_its_own_vectors_agree(case):
    """Trees split anew where a last digit of a vector moves one clip over a threshold."""
    scores, verdicts = article_scores(
        article_detector(case.vectors[: len(case.normal)]), case.vectors
    )
    info = recipes.build_audio_anomaly_detector(case.normal)
    found = [recipes.score_audio_anomaly(info, file) for file in case.normal + case.others]
    np.testing.assert_allclose([each["score"] for each in found], scores, atol=5e-3, rtol=0)
    assert np.mean([each["is_anomaly"] for each in found] == verdicts) >= 0.97  # one of 42


# --- small sets -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hisses(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("hisses")
    return [write(root / f"{k}.wav", 0.4 + 0.02 * k, seed=k) for k in range(12)]


@pytest.fixture(scope="module")
def info(hisses: list[Path]) -> dict[str, Any]:
    return recipes.build_audio_anomaly_detector([str(file) for file in hisses], 8000, 0.1)


def test_estimators_are_those_of_the_article(info):
    assert list(info) == ["detector", "scaler", "pca", "sr"]
    assert info["sr"] == 8000
    assert isinstance(info["scaler"], StandardScaler)
    assert isinstance(info["pca"], PCA)
    assert info["pca"].n_components_ == 12
    settings = info["detector"].get_params()
    assert (settings["n_estimators"], settings["random_state"]) == (100, 42)
    assert settings["contamination"] == 0.1


def test_answer(info, hisses, tmp_path):
    samples, rate = soundfile.read(hisses[8])
    soundfile.write(tmp_path / "rumble.wav", np.cumsum(samples) / 60, rate)
    normal, odd = (
        recipes.score_audio_anomaly(info, file) for file in (hisses[8], tmp_path / "rumble.wav")
    )
    assert list(odd) == ["filepath", "score", "is_anomaly", "label"]
    assert odd["filepath"] == tmp_path / "rumble.wav"
    assert odd["score"] < 0 < normal["score"]
    assert (odd["is_anomaly"], odd["label"]) == (True, "ANOMALY")
    assert (normal["is_anomaly"], normal["label"]) == (False, "Normal")
    assert (type(odd["score"]), type(odd["is_anomaly"])) == (float, bool)
    assert recipes.score_audio_anomaly(info, hisses[8].read_bytes())["score"] == normal["score"]


def test_threads_change_nothing(info, hisses):
    with threads(3):
        again = recipes.build_audio_anomaly_detector(iter(hisses), 8000, 0.1)
    x = np.random.default_rng(0).standard_normal((5, 12))
    np.testing.assert_array_equal(
        again["detector"].score_samples(x), info["detector"].score_samples(x)
    )
    np.testing.assert_array_equal(again["pca"].components_, info["pca"].components_)


def test_bad_files_are_skipped_with_a_warning(hisses, tmp_path):
    bad = tmp_path / "bad one.wav"
    bad.write_bytes(b"RIFF no audio")
    files = [bad, *hisses, tmp_path / "gone.wav"]
    with pytest.warns(UserWarning, match=r"^skipped: ") as told:
        found = recipes.build_audio_anomaly_detector(files, 8000)
    for each, name in zip(told, ("bad one.wav", "gone.wav"), strict=True):
        assert str(each.message).count(name) == 1
    assert all(each.filename == __file__ for each in told)
    expected = recipes.build_audio_anomaly_detector(hisses, 8000)
    # Files that are computed together go by all of them; a last digit may.
    np.testing.assert_allclose(found["scaler"].mean_, expected["scaler"].mean_, rtol=1e-5)
    for file in files[:1] + files[-1:]:
        with pytest.raises(DecodeError, match=file.name):
            recipes.score_audio_anomaly(found, file)


def test_two_recordings_are_enough_and_one_is_not(hisses, tmp_path):
    found = recipes.build_audio_anomaly_detector(hisses[:2], 8000)
    assert np.isfinite(recipes.score_audio_anomaly(found, hisses[5])["score"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ParameterError, match="1 of 2 can be read; a detector needs at least"):
            recipes.build_audio_anomaly_detector([hisses[0], tmp_path / "gone.wav"], 8000)
    with pytest.raises(ParameterError, match="0 of 0 can be read"):
        recipes.build_audio_anomaly_detector([], 8000)
    with pytest.raises(ParameterError, match="2 recordings that sound all the same"):
        recipes.build_audio_anomaly_detector(hisses[:1] * 2, 8000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contamination": 0}, "contamination=0: must be above 0, at most 0.5"),
        ({"contamination": 0.6}, "contamination=0.6"),
        ({"contamination": "few"}, "contamination='few'"),
        ({"sr": 0}, "sr=0: must be a positive whole"),
        ({"normal_audio_files": "clips"}, "normal_audio_files='clips': must be a list of files"),
    ],
)
def test_wrong_arguments_are_refused(hisses, settings, message):
    with pytest.raises(ParameterError, match=message):
        recipes.build_audio_anomaly_detector(**{"normal_audio_files": hisses, **settings})


def test_detector_of_other_features_is_refused(hisses):
    other = article_detector(np.random.default_rng(0).standard_normal((9, 20)))
    with pytest.raises(ParameterError, match="takes 20 numbers a clip, not the 270"):
        recipes.score_audio_anomaly(other, hisses[0])
