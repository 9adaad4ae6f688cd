import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import librosa
import numpy as np
import pytest
import soundfile
import test_denoise
import test_silence
import torch
from conftest import table
from contract import quietly
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import audiotorch as at
from audiotorch import recipes
from audiotorch.bench.measures import Comparison
from audiotorch.bench.references import Sound
from audiotorch.bench.rules import RULES, judge, measure
from audiotorch.bench.threads import threads
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.models.classic import build_classifier
from audiotorch.recipes.clips import summary_vector

RATE = 22050
CLASSES = {"fsdd": ("digit", 14), "esc10": ("class_name", 8), "arabic_commands": ("keyword", 12)}

# --- the article's code ---------------------------------------------------------------------------


def librosa_load(file: Path, sr: int = RATE, duration: float | None = None) -> np.ndarray:
    with warnings.catch_warnings():
        # It imports audioread, which imports what Python 3.13 drops.
        warnings.filterwarnings("ignore", ".*slated for removal", DeprecationWarning)
        return librosa.load(file, sr=sr, duration=duration)[0]


def article_summary(y: np.ndarray, sr: int, n_mfcc: int = 13) -> np.ndarray:
    mfcc = librosa.feature.mfcc(y=y, sr=sr, n_mfcc=n_mfcc)
    numbers: list[float] = []
    for x in (mfcc, librosa.feature.delta(mfcc), librosa.feature.delta(mfcc, order=2)):
        for statistic in (np.mean, np.std, np.max, np.min):
            numbers.extend(statistic(x, axis=1))
    for curve in (
        librosa.feature.spectral_centroid(y=y, sr=sr)[0],
        librosa.feature.spectral_bandwidth(y=y, sr=sr)[0],
        librosa.feature.spectral_rolloff(y=y, sr=sr)[0],
        librosa.feature.zero_crossing_rate(y)[0],
        librosa.feature.rms(y=y)[0],
    ):
        numbers += [np.mean(curve), np.std(curve)]
    mel = librosa.feature.melspectrogram(y=y, sr=sr, n_mels=40)
    for image in (
        librosa.feature.chroma_stft(y=y, sr=sr),
        librosa.power_to_db(mel, ref=np.max),
    ):
        numbers.extend(np.mean(image, axis=1))
        numbers.extend(np.std(image, axis=1))
    return np.array(numbers)


def article_features(y: np.ndarray, sr: int) -> dict[str, np.ndarray]:
    harmonic, _ = librosa.effects.hpss(y)
    share = np.sum(harmonic.astype(float) ** 2) / np.sum(y.astype(float) ** 2)
    return {
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(y)[0],
        "rms": librosa.feature.rms(y=y)[0],
        "spectral_centroid": librosa.feature.spectral_centroid(y=y, sr=sr)[0],
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(y=y, sr=sr)[0],
        "spectral_rolloff": librosa.feature.spectral_rolloff(y=y, sr=sr)[0],
        "spectral_contrast": librosa.feature.spectral_contrast(y=y, sr=sr),
        "mfcc": librosa.feature.mfcc(y=y, sr=sr, n_mfcc=13),
        "tempo": librosa.feature.tempo(y=y, sr=sr),
        "chroma_stft": librosa.feature.chroma_stft(y=y, sr=sr),
        "chroma_cens": librosa.feature.chroma_cens(y=y, sr=sr),
        "harmonic_ratio": np.array([share]),
        "tonnetz": librosa.feature.tonnetz(y=harmonic, sr=sr),
    }


class Loaded(NamedTuple):
    features: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    clips: list[np.ndarray]


def article_dataset(root: Path, sr: int = RATE, duration: float | None = None) -> Loaded:
    vectors, labels, clips = [], [], []
    class_names = sorted(path.name for path in root.iterdir())
    for label, name in enumerate(class_names):
        for file in sorted((root / name).iterdir()):
            y = librosa_load(file, sr, duration)
            if len(y) < 0.5 * sr:
                y = np.pad(y, (0, int(0.5 * sr) - len(y)))
            vectors.append(article_summary(y, sr))
            labels.append(label)
            clips.append(y)
    return Loaded(np.array(vectors), np.array(labels), class_names, clips)


def article_folds() -> StratifiedKFold:
    return StratifiedKFold(n_splits=5, shuffle=True, random_state=42)


def article_models() -> dict[str, Pipeline]:
    kinds = {
        # Where it stops by default, accuracies hang on last digits.
        "logistic": LogisticRegression(C=1.0, max_iter=500, tol=1e-5, random_state=42),
        "random_forest": RandomForestClassifier(n_estimators=100, random_state=42),
        "gradient_boost": GradientBoostingClassifier(n_estimators=100, random_state=42),
    }
    return {name: make_pipeline(StandardScaler(), kind) for name, kind in kinds.items()}


# --- recordings -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Some recordings of three corpora, in class folders."""
    root = tmp_path_factory.mktemp("sets")
    for corpus, (column, count) in CLASSES.items():
        rows = table(data_root / corpus / "labels.csv")
        for name in sorted({row[column] for row in rows}):
            folder = root / corpus / name
            folder.mkdir(parents=True)
            of_class = [row["file"] for row in rows if row[column] == name]
            for file in of_class[:: len(of_class) // count][:count]:
                path = data_root / corpus / file
                (folder / path.name).symlink_to(path)
    return {corpus: root / corpus for corpus in CLASSES}


@pytest.fixture(scope="module")
def by_article(sets: dict[str, Path]) -> dict[str, Loaded]:
    return {corpus: article_dataset(root) for corpus, root in sets.items()}


@pytest.fixture(scope="module")
def by_recipe(sets: dict[str, Path]) -> dict[str, tuple[np.ndarray, np.ndarray, list[str]]]:
    return {corpus: recipes.load_audio_dataset(root) for corpus, root in sets.items()}


def held(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], sound: Sound) -> Iterator:
    for rule in RULES:
        if rule.quantity in expected:
            rows = [np.atleast_2d(x[rule.quantity]) for x in (found, expected)]
            yield rule, measure(rule, Comparison(*rows, sound), "")


def assert_rules_hold(measured: list) -> None:
    """Judge by DESIGN's rules, over all clips at once."""
    for rule in {rule for rule, _ in measured}:
        outcome = judge(rule, [found for each, found in measured if each == rule])
        assert outcome.holds, f"{rule.quantity}, {rule.text}: {outcome.figure}"


@pytest.mark.parametrize("corpus", CLASSES)
def test_vectors_are_the_articles(by_article, by_recipe, corpus):
    expected = by_article[corpus]
    features, labels, class_names = by_recipe[corpus]
    assert class_names == expected.class_names
    np.testing.assert_array_equal(labels, expected.labels)
    assert (features.dtype, labels.dtype) == (np.float64, np.int64)
    assert (expected.features.dtype, expected.labels.dtype) == (np.float64, np.int64)
    measured = []
    for ours, theirs, clip in zip(features, expected.features, expected.clips, strict=True):
        for rule in RULES:
            if rule.quantity == "summary_vector":
                sound = Sound(clip, RATE)
                measured.append((rule, measure(rule, Comparison(ours, theirs, sound), "")))
    assert_rules_hold(measured)


@pytest.mark.parametrize("corpus", CLASSES)
def test_cross_validation_is_that_of_the_articles_vectors(by_article, by_recipe, corpus):
    """The same clips are told right; on whole sets, see the benchmark."""
    expected = by_article[corpus]
    model = article_models()["logistic"]
    theirs = cross_val_score(model, expected.features, expected.labels, cv=article_folds())
    info = recipes.train_audio_classifier(*by_recipe[corpus], "logistic")
    assert info["cv_mean"] == pytest.approx(theirs.mean(), abs=0.005)
    assert info["cv_mean"] > 0.6


def test_forests_are_as_good_on_the_articles_vectors(by_article, by_recipe):
    means = []
    for features, labels in (by_article["esc10"][:2], by_recipe["esc10"][:2]):
        accuracies = [
            cross_val_score(
                build_classifier("random_forest", seed=seed), features, labels, cv=article_folds()
            )
            for seed in range(5)
        ]
        means.append(np.mean(accuracies))
    assert means[1] == pytest.approx(means[0], abs=0.02)


@pytest.fixture(scope="module")
def clips(sets: dict[str, Path]) -> dict[str, np.ndarray]:
    files = [sorted(root.rglob("*.*"))[::40] for root in sets.values()]
    return {file.name: librosa_load(file, duration=5) for each in files for file in each}


def test_all_features_are_the_articles(clips):
    measured = []
    for y in clips.values():
        found = recipes.extract_all_librosa_features(y, RATE)
        expected = quietly(article_features, y, RATE)
        assert list(found) == list(expected)
        assert {k: x.shape for k, x in found.items()} == {k: x.shape for k, x in expected.items()}
        assert all(x.dtype == np.float32 for x in found.values())
        measured += held(found, expected, Sound(y, RATE))
    assert len(clips) >= 8
    assert_rules_hold(measured)


@pytest.mark.parametrize("sr", [8000, 16000, 44100])
def test_vector_is_that_of_the_rate(clips, sr):
    for y in list(clips.values())[::3]:
        y = y[: 2 * sr]
        if len(y) < 4096:
            continue
        found = recipes.extract_audio_features_summary(y, sr, n_mfcc=20)
        expected = article_summary(y, sr, n_mfcc=20)
        assert found.shape == (354,)
        rolloff = np.arange(354) // 2 == 122  # 240 MFCC, then centroid and bandwidth
        np.testing.assert_allclose(found[~rolloff], expected[~rolloff], rtol=1e-4, atol=2e-3)
        np.testing.assert_allclose(found[rolloff], expected[rolloff], atol=2 * sr / 2048)


def test_steps_are_the_articles(clips):
    for name, y in clips.items():
        for clip, limit in ((y, 2e-6), (y.astype(float), 1e-12)):
            found = recipes.remove_silence(clip, RATE)
            np.testing.assert_array_equal(found, test_silence.remove_silence(clip, RATE), name)
            assert found.dtype == clip.dtype
            cleaned = recipes.apply_noise_reduction(clip, 0.5)
            expected = quietly(lambda y, _: test_denoise.apply_noise_reduction(y, 0.5), clip, 0)
            np.testing.assert_allclose(cleaned, expected, atol=limit, rtol=0, err_msg=name)
            assert cleaned.dtype == clip.dtype


# --- one clip -------------------------------------------------------------------------------------


@pytest.fixture
def y() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)


STEPS: dict[str, Callable[[np.ndarray], object]] = {
    "summary": lambda y: recipes.extract_audio_features_summary(y, RATE),
    "all": lambda y: recipes.extract_all_librosa_features(y, RATE),
    "normalize": recipes.normalize_audio,
    "remove": lambda y: recipes.remove_silence(y, RATE),
    "reduce": recipes.apply_noise_reduction,
    "pad": lambda y: recipes.pad_or_trim(y, RATE, 1.5),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalize(y, dtype):
    y = (0.3 * y).astype(dtype)
    peak, rms = recipes.normalize_audio(y), recipes.normalize_audio(y, method="rms")
    np.testing.assert_allclose(peak, y / np.abs(y).max(), rtol=1e-6)
    np.testing.assert_allclose(rms, 0.1 * y / np.sqrt(np.mean(y.astype(float) ** 2)), rtol=1e-5)
    assert peak.dtype == rms.dtype == dtype


@pytest.mark.parametrize("seconds", [0.25, 1.0, 2.0])
def test_pad_or_trim(y, seconds):
    n = round(seconds * RATE)
    found = recipes.pad_or_trim(y, RATE, seconds)
    np.testing.assert_array_equal(found, np.pad(y, (0, max(0, n - len(y))))[:n])
    assert found.dtype == np.float32


def test_silence_has_features_and_stays_silence():
    silent = np.zeros(RATE, np.float32)
    for name, step in STEPS.items():
        found = step(silent)
        for x in found.values() if isinstance(found, dict) else [found]:
            assert np.isfinite(x).all(), name
    assert not recipes.normalize_audio(silent).any()
    assert not recipes.normalize_audio(silent, "rms").any()
    np.testing.assert_array_equal(recipes.remove_silence(silent, RATE), silent)


def test_one_sample():
    y = np.array([0.5], np.float32)
    for name in ("normalize", "remove", "reduce", "pad"):
        assert np.isfinite(STEPS[name](y)).all()
    assert recipes.extract_all_librosa_features(y, RATE)["mfcc"].shape == (13, 1)
    with pytest.raises(ParameterError, match=r"y of 1 samples: the deltas need 4096; .*\(y, sr, "):
        recipes.extract_audio_features_summary(y, RATE)


def test_the_remedy_for_short_clips_works():
    for sr in (8000, 11025, 44100):
        y = np.full(100, 0.1)
        with pytest.raises(ParameterError) as refused:
            recipes.extract_audio_features_summary(y, sr)
        seconds = re.search(r"such as pad_or_trim\(y, sr, ([\d.]+)\)$", str(refused.value))[1]
        padded = recipes.pad_or_trim(y, sr, float(seconds))
        assert recipes.extract_audio_features_summary(padded, sr).shape == (270,)


@pytest.mark.parametrize("name", STEPS)
def test_input_may_lie_in_memory_as_it_likes(name, y):
    expected = STEPS[name](y)
    readonly = y.copy()
    readonly.flags.writeable = False
    every_second = np.repeat(y, 2)[::2]
    for clip in (readonly, every_second, y[::-1].copy()[::-1], y.astype(">f4")):
        before = clip.copy()
        found = STEPS[name](clip)
        np.testing.assert_equal(found, expected)
        np.testing.assert_array_equal(clip, before)
    for x in found.values() if isinstance(found, dict) else [found]:
        assert x.base is None
        x[...] = 0.0  # the caller's own
    np.testing.assert_equal(STEPS[name](y), expected)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros(0), r"y of shape \(0,\): must be \(n,\)"),
        (np.zeros((2, 9000)), r"y of shape \(2, 9000\): must be \(n,\).*average channels"),
        (np.float64(0.5), r"y of float64: must be an array"),
        (np.full(9000, np.nan), r"y\[0\]=nan: every sample must be finite"),
        (np.full(9000, -1e20), r"y\[0\]=-1e\+20: every sample must be finite, and within 1e\+12"),
        (np.append(np.zeros(9000), -np.inf), r"y\[9000\]=-inf"),
        (np.zeros(9000, np.int16), r"y of int16: must be .*float32.*divide int16 samples by 32768"),
        (np.zeros(9000, np.float16), r"y of float16: "),
        (np.zeros(9000, complex), r"y of complex128: "),
        ([0.0] * 9000, r"y of list: must be an array"),
        (torch.zeros(9000), r"y of Tensor: must be an array"),
    ],
)
def test_what_is_no_clip_is_refused(name, clip, message):
    with pytest.raises(ParameterError, match=message):
        STEPS[name](clip)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y: recipes.extract_audio_features_summary(y, 0), "sr=0: must be a positive whole"),
        (lambda y: recipes.extract_audio_features_summary(y, 22050.0), r"sr=22050\.0: must be"),
        (lambda y: recipes.extract_audio_features_summary(y, RATE, 0), "n_mfcc=0: must"),
        (lambda y: recipes.extract_all_librosa_features(y, 8000), "sr=8000: too low .*6400 Hz"),
        (lambda y: recipes.normalize_audio(y, "loud"), "method='loud': must be \"peak\""),
        (lambda y: recipes.remove_silence(y, RATE, top_db=0), "top_db=0"),
        (lambda y: recipes.remove_silence(y, RATE, pad_ms=-1), "pad_ms=-1"),
        (lambda y: recipes.apply_noise_reduction(y, -0.1), r"noise_factor=-0\.1"),
        (lambda y: recipes.pad_or_trim(y, RATE, 0), "duration=0: must be above 0"),
    ],
)
def test_wrong_settings_are_refused(y, call, message):
    with pytest.raises(ParameterError, match=message):
        call(y)


def test_modules_are_built_once(y):
    recipes.extract_audio_features_summary(y, RATE)
    before = summary_vector.cache_info()
    recipes.extract_audio_features_summary(y, RATE)
    assert summary_vector.cache_info().misses == before.misses


# --- folders --------------------------------------------------------------------------------------


def write(path: Path, seconds: float = 0.6, seed: int = 0, rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    soundfile.write(path, samples, rate)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Names that are awkward, hidden files, folders in folders, another suffix."""
    root = tmp_path / "ré cordings"
    write(root / "b 犬" / "2 ü zwei.WAV", seed=1)
    write(root / "b 犬" / "1.flac", seed=2, rate=16000)
    write(root / "a" / "x.wav", 0.1, seed=3)
    write(root / "a" / "deep" / "er" / "y.ogg", 1.5, seed=4)
    for hidden in ("a/._x.wav", ".trash/z.wav", "a/.old/z.wav"):
        write(root / hidden)
    (root / "a" / "notes.txt").write_text("no audio")
    write(root / "loose.wav")
    return root


FILES = ("a/deep/er/y.ogg", "a/x.wav", "b 犬/1.flac", "b 犬/2 ü zwei.WAV")


def expected_vector(file: Path, sr: int = RATE, duration: float | None = None) -> np.ndarray:
    y = librosa_load(file, sr, duration)
    return recipes.extract_audio_features_summary(
        np.pad(y, (0, max(0, round(sr / 2), 4096) - min(len(y), max(round(sr / 2), 4096)))), sr
    )


@pytest.mark.parametrize(("sr", "duration"), [(RATE, None), (8000, None), (16000, 0.7)])
def test_folder_is_walked_in_order(folder, sr, duration):
    features, labels, names = recipes.load_audio_dataset(str(folder), sr, duration)
    assert names == ["a", "b 犬"]
    assert labels.tolist() == [0, 0, 1, 1]
    for file, vector in zip(FILES, features, strict=True):
        np.testing.assert_allclose(
            vector, expected_vector(folder / file, sr, duration), rtol=1e-4, atol=1e-3
        )


def test_first_files_of_each_class(folder):
    features, labels, _ = recipes.load_audio_dataset(folder, max_files_per_class=1)
    assert labels.tolist() == [0, 1]
    whole = recipes.load_audio_dataset(folder)[0]
    np.testing.assert_allclose(features, whole[[0, 2]], rtol=1e-5, atol=1e-5)


def test_threads_change_nothing(folder):
    for k in range(80):
        write(folder / "b 犬" / "more" / f"{k}.wav", 0.4 + 0.01 * (k % 30), seed=k)
    alone = recipes.load_audio_dataset(folder)[0]
    with threads(3):
        several = recipes.load_audio_dataset(folder)[0]
        assert torch.get_num_threads() == 3
    np.testing.assert_array_equal(several, alone)


def test_a_bad_file_is_skipped_with_a_warning(folder):
    (folder / "a" / "bad one.wav").write_bytes(b"RIFF no audio")
    soundfile.write(folder / "a" / "empty.wav", np.zeros(0), 8000)
    (folder / "b 犬" / "gone.wav").symlink_to(folder / "nowhere.wav")
    with pytest.warns(UserWarning, match=r"^skipped: ") as told:
        features, labels, _ = recipes.load_audio_dataset(folder)
    texts = [str(each.message) for each in told]
    assert len(texts) == 3
    for text, name in zip(texts, ("bad one.wav", "empty.wav", "gone.wav"), strict=True):
        assert text.count(name) == 1
    assert "holds no samples" in texts[1]
    assert all(each.filename == __file__ for each in told)
    assert labels.tolist() == [0, 0, 1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(features, recipes.load_audio_dataset(folder)[0])


def test_a_class_without_clips_keeps_its_place(folder):
    (folder / "aa").mkdir()
    with pytest.warns(UserWarning, match=r"aa: holds no clip; the class has none"):
        features, labels, names = recipes.load_audio_dataset(folder)
    assert names == ["a", "aa", "b 犬"]
    assert labels.tolist() == [0, 0, 2, 2]
    with pytest.warns(UserWarning, match=r"class 'a' has 2 clips: 2 folds instead of 5"):
        info = recipes.train_audio_classifier(features, labels, names)
    answer = recipes.predict_audio_file(info, folder / FILES[0])
    assert list(answer["all_probs"]) == names
    assert answer["all_probs"]["aa"] == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"audio_dir": "missing"}, "audio_dir='missing': must be an existing folder"),
        ({"sr": -1}, "sr=-1: must be"),
        ({"duration": 0}, "duration=0: must be above 0 seconds, or None"),
        ({"duration": float("nan")}, "duration=nan"),
        ({"max_files_per_class": 0}, "max_files_per_class=0: must be at least 1"),
    ],
)
def test_wrong_arguments_of_the_loader(folder, settings, message):
    with pytest.raises(ParameterError, match=message):
        recipes.load_audio_dataset(**{"audio_dir": folder, **settings})


def test_nothing_to_load_is_refused(tmp_path):
    write(tmp_path / "loose.wav")
    with pytest.raises(ParameterError, match="must hold a folder of recordings for each class"):
        recipes.load_audio_dataset(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.wav").write_bytes(b"no audio")
    with (
        pytest.warns(UserWarning, match=r"bad\.wav|holds no clip"),
        pytest.raises(ParameterError, match="none of its 1 audio files in class folders"),
    ):
        recipes.load_audio_dataset(tmp_path)


# --- training -------------------------------------------------------------------------------------


def blobs(counts: tuple[int, ...] = (20, 20, 20)) -> tuple[np.ndarray, np.ndarray, list[str]]:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    features = generator.standard_normal((len(labels), 30)) * 50 + 30 * labels[:, None]
    return features, labels, [f"class {k}" for k in range(len(counts))]


@pytest.mark.parametrize("name", ["logistic", "random_forest", "gradient_boost"])
def test_training_is_scikit_learns_own(name):
    features, labels, names = blobs((12, 12, 12))
    model = article_models()[name]
    scores = cross_val_score(model, features, labels, cv=article_folds(), scoring="accuracy")
    for n_threads in (1, 2):
        with threads(n_threads):
            info = recipes.train_audio_classifier(features, labels, names, name)
        assert set(info) == {"model", "cv_mean", "cv_std", "class_names"}
        assert (info["cv_mean"], info["cv_std"]) == (scores.mean(), scores.std())
        assert info["class_names"] == names
        expected = model.fit(features, labels).predict_proba(features)
        found = info["model"].predict_proba(features)
        np.testing.assert_allclose(found, expected, atol=1e-3 if name == "logistic" else 0)
    assert isinstance(info["model"], Pipeline)
    assert isinstance(info["model"][0], StandardScaler)


@pytest.mark.parametrize("name", ["svm", "extra_trees", "hist_gradient_boost", "knn"])
def test_other_classifiers_are_trained_too(name):
    info = recipes.train_audio_classifier(*blobs(), name)
    assert info["cv_mean"] > 0.5
    assert info["model"].predict_proba(np.zeros((1, 30))).shape == (1, 3)


def test_accuracy_of_logistic_does_not_hang_on_the_last_digit(by_article):
    features, labels, names, _ = by_article["esc10"]
    noise = np.random.default_rng(0).standard_normal(features.shape) * features.std(axis=0)
    found = {
        recipes.train_audio_classifier(features + size * noise, labels, names, "logistic")[
            "cv_mean"
        ]
        for size in (0.0, 1e-12, 1e-9, 1e-6)
    }
    assert len(found) == 1


def test_the_forest_is_the_default():
    info = recipes.train_audio_classifier(*blobs())
    assert isinstance(info["model"][-1], RandomForestClassifier)


def test_few_clips_make_fewer_folds():
    features, labels, names = blobs((9, 3))
    with pytest.warns(UserWarning, match=r"class 'class 1' has 3 clips: 3 folds instead of 5"):
        info = recipes.train_audio_classifier(features, labels, names, "logistic")
    folds = StratifiedKFold(3, shuffle=True, random_state=42)
    scores = cross_val_score(article_models()["logistic"], features, labels, cv=folds)
    assert info["cv_mean"] == scores.mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, t, n: (x[0], t, n), r"features of shape \(30,\)"),
        (lambda x, t, n: (x[:0], t[:0], n), r"features of shape \(0, 30\)"),
        (lambda x, t, n: (x.astype(str), t, n), r"features .*: must be numbers"),
        (lambda x, t, n: (np.where(x == x[3, 7], np.nan, x), t, n), r"features\[3, 7\]=nan"),
        (lambda x, t, n: (x / 0.0, t, n), r"features\[0, 0\]=-?inf: must be finite"),
        (lambda x, t, n: (x, t[:-1], n), r"labels of shape \(59,\) .*: must be 60 whole numbers"),
        (lambda x, t, n: (x, [n[k] for k in t], n), r"labels of .*<U7: must be 60 whole numbers"),
        (lambda x, t, n: (x, t, n[:2]), r"labels: 2 is no position in class_names, which has 2"),
        (lambda x, t, n: (x, t - 1, n), r"labels: -1 is no position"),
        (lambda x, t, n: (x, t, ["a", "a", "b"]), r"class_names=.*: each must stand once"),
        (lambda x, t, n: (x, 0 * t, n), r"labels: clips of 1 class only"),
        (lambda x, t, n: (x[:41], t[:41], n), r"class 'class 2' has a single clip"),
        (lambda x, t, n: (x, t, n, "forest"), r"classifier='forest': must be one of logistic"),
    ],
)
def test_wrong_training_data_are_refused(change, message):
    with np.errstate(divide="ignore"), pytest.raises(ParameterError, match=message):
        recipes.train_audio_classifier(*change(*blobs()))


def test_too_few_for_a_classifier_is_told():
    with pytest.raises(ParameterError, match=r"classifier='svm': cannot be trained on 10 clips: "):
        recipes.train_audio_classifier(*blobs((5, 5)), "svm")


# --- answers --------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> dict:
    for k in range(6):
        for name, gain in (("hiss", 1.0), ("rumble", 60.0)):
            path = write(tmp_path / "set" / name / f"{k}.wav", seed=k)
            y, rate = soundfile.read(path)
            soundfile.write(path, np.cumsum(y) / gain if gain > 1 else y, rate)
    info = recipes.train_audio_classifier(
        *recipes.load_audio_dataset(tmp_path / "set", 8000), "logistic"
    )
    assert info["cv_mean"] == 1.0
    return info


def test_answer(trained, tmp_path):
    path = tmp_path / "set" / "rumble" / "3.wav"
    answer = recipes.predict_audio_file(trained, path, sr=8000)
    assert answer["predicted_class"] == "rumble"
    expected = trained["model"].predict_proba(expected_vector(path, 8000)[None])[0]
    assert list(answer["all_probs"]) == ["hiss", "rumble"]
    np.testing.assert_allclose(list(answer["all_probs"].values()), expected, atol=1e-6)
    assert answer["confidence"] == answer["all_probs"]["rumble"] > 0.5
    assert type(answer["confidence"]) is float
    assert recipes.predict_audio_file(trained, path.read_bytes(), 8000) == answer


def test_answer_for_a_bad_file(trained, tmp_path):
    with pytest.raises(DecodeError, match=r"missing\.wav"):
        recipes.predict_audio_file(trained, tmp_path / "missing.wav")
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    with pytest.raises(DecodeError, match=r"bad\.wav"):
        recipes.predict_audio_file(trained, tmp_path / "bad.wav")


def test_answer_of_another_models_features(trained, tmp_path):
    other = recipes.train_audio_classifier(blobs()[0][:, :20], *blobs()[1:], "logistic")
    with pytest.raises(ParameterError, match="takes 20 numbers a clip, not the 270"):
        recipes.predict_audio_file(other, tmp_path / "set" / "hiss" / "0.wav")


def test_model_takes_what_summary_vector_gives(trained, tmp_path):
    """So that both together make a Pipeline."""
    waveform, rate = at.load(tmp_path / "set" / "hiss" / "0.wav", 8000)
    vector = at.SummaryVector(rate)(waveform).double().numpy()
    assert trained["model"].predict(vector).tolist() == [0]
