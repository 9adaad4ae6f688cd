import io
import pickle
import warnings
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pytest
import skops.io
import soundfile
import torch
from conftest import table
from rows_pooled import summary_of
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import estimator_checks
from torch import nn

import audiotorch as at
from audiotorch.batch.columns import FeatureColumns
from audiotorch.features import MFCCStatistics, SpectrogramImage, SummaryVector
from audiotorch.models import Linear
from audiotorch.models.audio_features import FRONT_ENDS

RATE = 22050
ROLLOFF = [160, 161]  # a step: some frames fall one bin off


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(round(seconds * rate))).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Six clips of noise of several lengths, rates and channel counts."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{k}.wav" for k in range(6)]
    for k, path in enumerate(paths):
        rate, n_channels = (8000, 22050, 44100)[k % 3], 1 + k % 2
        waveform = noise(0.3 + 0.2 * k, rate, k)[:, None].repeat(n_channels, axis=1)
        soundfile.write(path, waveform, rate)
    return paths


@pytest.fixture(scope="module")
def digits(data_root) -> pd.DataFrame:
    """Four digits by three speakers, eight times each: path, digit, speaker."""
    rows = table(data_root / "fsdd" / "labels.csv")
    speakers = sorted({row["speaker"] for row in rows})[:3]
    found = pd.DataFrame(
        [row for row in rows if row["speaker"] in speakers and int(row["digit"]) < 4]
    )
    found["path"] = [str(data_root / "fsdd" / name) for name in found["file"]]
    return found.groupby(["digit", "speaker"]).head(8)[["path", "digit", "speaker"]]


# --- scikit-learn's own checks --------------------------------------------------------------------


@estimator_checks.parametrize_with_checks(
    [at.AudioFeatures(), at.AudioFeatures(["rms", "tempo"], on_error="nan")]
)
def test_scikit_learn_checks_all_pass(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")  # tried by them
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_dataframe_column_names_consistency,
        estimator_checks.check_transformer_get_feature_names_out,
        estimator_checks.check_transformer_get_feature_names_out_pandas,
        estimator_checks.check_set_output_transform,
        estimator_checks.check_set_output_transform_pandas,
        estimator_checks.check_global_output_transform_pandas,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learn_checks_of_its_own_estimators_pass(check):
    check("AudioFeatures", at.AudioFeatures())


# --- the numbers ----------------------------------------------------------------------------------


def test_summary_of_real_files_is_librosas(recordings, data_root, tmp_path):
    paths = [tmp_path / f"{k}.wav" for k in range(len(recordings))]
    for path, each in zip(paths, recordings, strict=True):
        soundfile.write(path, each.samples, each.sample_rate, subtype="FLOAT")
    ours = at.AudioFeatures().fit_transform(paths)
    assert ours.dtype == np.float64
    expected = []
    for each in recordings:
        samples = each.samples.astype(np.float32)
        y = librosa.resample(samples, orig_sr=each.sample_rate, target_sr=RATE)
        expected.append(summary_of(np.pad(y, (0, max(0, RATE // 2 - len(y)))), RATE))
    share = np.abs(ours - np.array(expected)).max(axis=0) / np.std(expected, axis=0)
    assert share[ROLLOFF].max() <= 1e-3
    assert np.delete(share, ROLLOFF).max() <= 5e-5


def test_numbers_are_those_of_a_pipeline(files):
    transformer = at.AudioFeatures().fit(files)
    front = transformer.front_end_
    pipeline = at.Pipeline(front, Linear(2, front.output_shape), sample_rate=RATE)
    rows = transformer.transform(files)
    for path, row in zip(files, rows, strict=True):
        with torch.no_grad():
            expected = pipeline.front(at.load(path)[0])[0][0]
        np.testing.assert_allclose(row, expected.double().numpy(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_clip_is_the_same_alone_and_beside_others(files, batch_size):
    transformer = at.AudioFeatures(batch_size=batch_size)
    together = transformer.fit_transform(files)
    alone = np.concatenate([transformer.transform([path]) for path in files])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-4)


def test_short_clips_count_as_padded(files):
    given, padded = noise(0.1), np.pad(noise(0.1), (0, RATE // 2 - 2205))
    transformer = at.AudioFeatures()
    rows = transformer.transform([given, padded])
    np.testing.assert_array_equal(rows[0], rows[1])
    longer = at.AudioFeatures(min_duration=1.0).transform([given])
    assert np.abs(longer - rows[:1]).max() > 1
    message = r"lasts 0\.100 s, the features need 0\.186 s; pad the clip, or raise min_duration"
    with pytest.raises(at.ParameterError, match=rf"X\[0\]: {message}"):
        at.AudioFeatures(min_duration=0).transform([given])
    buffer = io.BytesIO()
    soundfile.write(buffer, given, RATE, format="WAV")
    with pytest.raises(at.DecodeError, match=message):
        at.AudioFeatures(min_duration=0).transform([buffer.getvalue()])


def waveforms_of(files: list[Path]) -> list[np.ndarray]:
    return [at.load(path)[0][0].numpy() for path in files]


@pytest.mark.parametrize(
    "given",
    [
        lambda files: [str(path) for path in files],
        lambda files: tuple(files),
        lambda files: [path.read_bytes() for path in files],
        lambda files: [io.BytesIO(path.read_bytes()) for path in files],
        lambda files: np.array(files, dtype=object),
        lambda files: np.array([str(path) for path in files]),
        lambda files: np.array([[path] for path in files], dtype=object),
        lambda files: [[str(path)] for path in files],
        lambda files: pd.Series([str(path) for path in files], index=range(3, 9)),
        lambda files: pd.Series([str(path) for path in files], dtype="category"),
        lambda files: pd.DataFrame({"path": [str(path) for path in files]}),
        lambda files: pd.DataFrame({"path": files}),
        lambda files: waveforms_of(files),
        lambda files: [torch.from_numpy(clip).double() for clip in waveforms_of(files)],
        lambda files: [clip.tolist() for clip in waveforms_of(files)],
        lambda files: pd.Series(waveforms_of(files)),
        lambda files: pd.DataFrame({"clip": waveforms_of(files)}),
        lambda files: [files[0], *waveforms_of(files)[1:]],
    ],
)
def test_recordings_come_in_many_forms(files, given):
    transformer = at.AudioFeatures(["rms", "spectral_centroid"])
    np.testing.assert_allclose(
        transformer.fit_transform(given(files)), transformer.transform(files), rtol=1e-6
    )


@pytest.mark.parametrize(
    "given",
    [
        lambda x: x,
        lambda x: x.astype(np.float64)[:, ::1],
        lambda x: torch.from_numpy(x.copy()),
        lambda x: list(x),
        lambda x: x.tolist(),
        lambda x: x.astype(object),
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(">f4"),
        lambda x: pd.DataFrame(x),
    ],
)
def test_rows_of_a_table_are_waveforms(given):
    x = np.stack([noise(0.6, seed=k) for k in range(3)])
    before = x.copy()
    x.flags.writeable = False
    expected = SummaryVector()(torch.from_numpy(before)).double().numpy()
    np.testing.assert_allclose(at.AudioFeatures().fit_transform(given(x)), expected, rtol=1e-5)
    np.testing.assert_array_equal(x, before)


def test_ten_minutes_are_one_row(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(noise(60.0, 8000), 10), 8000)
    transformer = at.AudioFeatures(["rms", "zero_crossing_rate"], sample_rate=8000)
    (row,) = transformer.transform([path])
    y = soundfile.read(path, dtype="float32")[0]
    assert len(y) == 600 * 8000
    rms, rate = librosa.feature.rms(y=y), librosa.feature.zero_crossing_rate(y)
    np.testing.assert_allclose(row, [rms.mean(), rms.std(), rate.mean(), rate.std()], rtol=1e-4)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "features", ["summary", ["summary"], "tempo", ["rms", "mfcc", "tempo", "chroma_stft"]]
)
def test_names_are_those_of_the_table_command(features):
    names = at.AudioFeatures(features).get_feature_names_out()
    assert list(names) == FeatureColumns(features).names


def test_numbers_stand_under_their_names():
    clip = noise(1.0)
    transformer = at.AudioFeatures(("mfcc", "spectral_centroid")).set_output(transform="pandas")
    row = transformer.fit_transform([clip]).iloc[0]
    mfcc = librosa.feature.mfcc(y=clip, sr=RATE, n_mfcc=13)
    assert row["mfcc_std_3"] == pytest.approx(mfcc[3].std(), rel=1e-4)
    centroid = librosa.feature.spectral_centroid(y=clip, sr=RATE)
    assert row["spectral_centroid_mean"] == pytest.approx(centroid.mean(), rel=1e-5)


def test_pandas_out_keeps_the_index(files):
    table = pd.DataFrame({"path": files}, index=list("abcdef"))
    transformer = at.AudioFeatures("mfcc_stats").set_output(transform="pandas")
    found = transformer.fit_transform(table)
    assert list(found.columns) == MFCCStatistics().names
    assert list(found.index) == list("abcdef")
    assert list(transformer.transform(table["path"]).index) == list("abcdef")
    assert transformer.n_features_in_ == 1
    assert list(transformer.feature_names_in_) == ["path"]
    with pytest.raises(ValueError, match="Feature names seen at fit time, yet now missing"):
        transformer.transform(table.rename(columns={"path": "file"}))


def test_a_list_has_no_columns(files):
    transformer = at.AudioFeatures(["rms"]).fit(pd.DataFrame({"path": files}))
    transformer.fit(files)
    assert not hasattr(transformer, "n_features_in_")
    assert not hasattr(transformer, "feature_names_in_")


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_every_front_end_by_name(files, name):
    transformer = at.AudioFeatures(name).fit(files)
    rows = transformer.transform(files[:2])
    assert rows.shape == (2, len(set(transformer.get_feature_names_out())))
    assert np.isfinite(rows).all()


# --- life with scikit-learn -----------------------------------------------------------------------


def test_cross_validation_on_paths_is_that_on_their_rows(digits):
    rows = at.AudioFeatures().fit_transform(digits["path"])
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    model = make_pipeline(at.AudioFeatures(), *[step for _, step in classifier.steps])
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    expected = cross_val_score(classifier, rows, digits["digit"], cv=folds)
    scores = cross_val_score(model, digits["path"].tolist(), digits["digit"], cv=folds)
    np.testing.assert_array_equal(scores, expected)
    assert scores.mean() > 0.9
    workers = cross_val_score(model, digits[["path"]], digits["digit"], cv=folds, n_jobs=2)
    np.testing.assert_array_equal(workers, expected)


def test_grid_search_over_features_and_rate(digits):
    digits = digits.groupby(["digit", "speaker"]).head(3)
    model = make_pipeline(at.AudioFeatures(), StandardScaler(), LogisticRegression())
    choices = ["mfcc_stats", ["rms", "zero_crossing_rate"], MFCCStatistics(16000, n_mfcc=13)]
    grid = [
        {"audiofeatures__features": choices[:2], "audiofeatures__sample_rate": [16000, 22050]},
        {"audiofeatures__features": choices[2:], "audiofeatures__sample_rate": [16000]},
    ]
    folds = GroupKFold(3)
    search = GridSearchCV(model, grid, cv=folds).fit(
        digits["path"], digits["digit"], groups=digits["speaker"]
    )
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_["audiofeatures__features"] != choices[1]
    assert len(search.predict(digits["path"][:4])) == 4


def test_beside_other_columns(digits):
    columns = make_column_transformer(
        (at.AudioFeatures("rms"), "path"),
        (at.AudioFeatures(["tempo"]), ["path"]),
        (OneHotEncoder(sparse_output=False), ["speaker"]),
    ).set_output(transform="pandas")
    few = digits[::12]
    found = columns.fit_transform(few)
    assert list(found.columns)[:3] == [
        "audiofeatures-1__rms_mean",
        "audiofeatures-1__rms_std",
        "audiofeatures-2__tempo",
    ]
    assert list(found.index) == list(few.index)
    union = FeatureUnion([("level", at.AudioFeatures("rms")), ("all", at.AudioFeatures())])
    assert union.fit_transform(few["path"]).shape == (len(few), 272)
    assert list(union.get_feature_names_out())[1:3] == ["level__rms_std", "all__mfcc_mean_0"]


def test_parameters_of_all_kinds_are_cloned(files):
    module = MFCCStatistics(16000, n_mfcc=5).train()
    transformer = at.AudioFeatures(module, sample_rate=16000)
    assert transformer.get_params()["features"] is module
    rows = clone(transformer).fit(files).transform(files)
    assert rows.shape == (6, 60)
    assert module.training
    fitted = transformer.fit(files)
    assert fitted.set_params(features="summary", sample_rate=RATE).fit(files).transform(
        files[:1]
    ).shape == (1, 270)
    assert clone(fitted).get_feature_names_out()[0] == "mfcc_mean_0"
    assert "MFCC" in repr(transformer.set_params(features=module))


def test_copies_hold_settings_and_give_the_same(files):
    transformer = at.AudioFeatures().fit(pd.DataFrame({"path": files}))
    data = pickle.dumps(transformer)  # as workers get it
    assert len(data) < 2000
    copied = pickle.loads(data)
    assert list(copied.feature_names_in_) == ["path"]
    np.testing.assert_array_equal(copied.transform(files[:2]), transformer.transform(files[:2]))


def test_stored_with_a_model_by_skops(digits):
    digits = digits[::4]
    model = make_pipeline(at.AudioFeatures("rms"), StandardScaler(), LogisticRegression())
    data = skops.io.dumps(model.fit(digits["path"], digits["digit"]))
    trusted = ["audiotorch.models.audio_features.AudioFeatures"]
    assert skops.io.get_untrusted_types(data=data) == trusted
    loaded = skops.io.loads(data, trusted=trusted)
    np.testing.assert_array_equal(
        loaded.predict_proba(digits["path"]), model.predict_proba(digits["path"])
    )


def test_a_front_end_of_ones_own(files):
    class Loudest(nn.Module):
        sample_rate, output_shape, min_samples = 8000, [2], 1

        def frame_counts(self, lengths):
            return torch.ones_like(lengths)

        def forward(self, waveform, lengths=None):
            return torch.stack([waveform.abs().amax(1), lengths / 8000], dim=1)

    transformer = at.AudioFeatures(Loudest(), sample_rate=8000, min_duration=0)
    rows = transformer.fit_transform(files)
    np.testing.assert_allclose(rows[:, 1], [0.3, 0.5, 0.7, 0.9, 1.1, 1.3], atol=1e-3)
    assert list(transformer.get_feature_names_out()) == ["loudest0", "loudest1"]


def test_images_are_pooled_as_a_perceptron_does(files):
    image = SpectrogramImage(n_mels=16)
    transformer = at.AudioFeatures(image).set_output(transform="pandas")
    found = transformer.fit_transform(files[4:5])
    (pixels,) = image(at.load(files[4])[0])
    np.testing.assert_allclose(found["mel_mean_3"][0], pixels[0, 3].mean(), atol=1e-5)
    np.testing.assert_allclose(found["mel_max_15"][0], pixels[0, 15].max(), atol=1e-5)
    assert found.shape == (1, 64)


# --- bad clips ------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path) -> Path:
    path = tmp_path / "broken.wav"
    path.write_bytes(b"RIFF nothing of the kind")
    return path


def test_a_bad_file_is_named_with_the_remedy(files, broken):
    message = r"broken\.wav: .*; or let on_error='nan' give it a row of NaN"
    transformer = at.AudioFeatures().fit([*files, broken])
    with pytest.raises(at.DecodeError, match=message):
        transformer.transform([*files, broken])
    with pytest.raises(at.DecodeError, match=r"no\.wav: no such file; .* on_error='nan'"):
        transformer.transform(["no.wav"])


def test_a_bad_clip_can_be_a_row_of_nan(files, broken):
    silent = np.zeros(0, dtype=np.float32)
    bad = [broken, None, float("nan"), pd.NA, silent, np.array([0.1, np.inf]), b"", "no.wav"]
    transformer = at.AudioFeatures("rms", on_error="nan", batch_size=3).fit([*bad, *files])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = transformer.transform([*bad, *files])
    assert np.isnan(rows[: len(bad)]).all()
    np.testing.assert_allclose(rows[len(bad) :], transformer.transform(files), rtol=1e-6)
    told = [str(each.message) for each in caught]
    assert len(told) == len(bad)
    assert all(text.endswith("; its row is NaN") for text in told)
    named = ["broken.wav", r"X[1]=None", "X[2]=nan", "X[3]=<NA>", "X[4]", "X[5]", "<bytes>"]
    for text, name in zip(told, [*named, "no.wav"], strict=True):
        assert name in text
    assert {each.filename for each in caught} == {__file__}


@pytest.mark.filterwarnings("ignore:.*its row is NaN")
def test_all_clips_bad_are_rows_of_nan(broken):
    assert np.isnan(at.AudioFeatures(on_error="nan").transform([broken])).all()


@pytest.mark.filterwarnings("ignore:.*its row is NaN")
def test_models_that_take_nan_go_on(digits, broken):
    paths, labels = [*digits["path"], str(broken)], [*digits["digit"], "0"]
    model = make_pipeline(
        at.AudioFeatures(on_error="nan"), HistGradientBoostingClassifier(max_iter=5)
    )
    assert len(model.fit(paths, labels).predict(paths)) == len(paths)
    with pytest.raises(at.DecodeError, match=r"broken\.wav"):
        model.set_params(audiofeatures__on_error="raise").fit(paths, labels)


def test_missing_and_unusable_waveforms_are_refused_in_fit_too():
    for bad, message in (
        (np.array([0.1, np.nan]), r"X\[1\]: has samples that are NaN, infinite or beyond 1e\+12"),
        # The power of such a sample is infinite in float32: no row of NaN goes unnoticed.
        (np.full(30000, 1e30), r"X\[1\]: has samples that are NaN, infinite or beyond 1e\+12"),
        (np.zeros(0), r"X\[1\]: holds no samples"),
        (None, r"X\[1\]=None: is no recording"),
        (np.full(30000, 1e300), r"X\[1\]: has samples that are NaN, infinite or beyond 1e\+12"),
    ):
        with pytest.raises(at.ParameterError, match=message):
            at.AudioFeatures().fit([noise(0.5), bad])


class Stream:
    pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((0, 5)), r"X: Found array with 0 sample\(s\)"),
        ([[]], r"X: Found array with 0 feature\(s\)"),
        ([], "X is empty: .* give at least one clip"),
        (np.array([], dtype=object), "X is empty"),
        (pd.Series([], dtype=object), "X is empty"),
        ("a.wav", r"X='a\.wav': is one recording; put it into a list"),
        (Path("a.wav"), "is one recording; put it into a list"),
        (b"RIFF", "X='<bytes>': is one recording"),
        (noise(1.0), r"Reshape your data with X\.reshape\(1, -1\) if it is one waveform"),
        (torch.zeros(9), r"X: has the shape \(9,\)"),
        (noise(0.01).tolist(), r"X: has the shape \(220,\)"),
        (np.zeros((3, 2, 900)), r"X: has the shape \(3, 2, 900\).*average channels first"),
        ([np.zeros((2, 900))], r"X\[0\]: has the shape \(2, 900\), a clip has one axis"),
        (["a.wav", 7], r"X\[1\]=7: is no clip; X must be a list of paths"),
        ([Stream()], r"X\[0\]=<.*Stream.*>: is no clip"),
        ([{"path": "a.wav"}], r"X\[0\]=\{'path': 'a\.wav'\}: is no clip"),
        ([3, 4, 5], r"X: has the shape \(3,\)"),
        ((path for path in ["a.wav"]), r"X is a generator: .*list\(X\) may help"),
        ({"a.wav"}, r"X is a set"),
        ({"path": ["a.wav"]}, r"X is a dict"),
        (None, r"X is a NoneType"),
        ([np.zeros(900, dtype=complex)], r"X\[0\]: has dtype complex128"),
        ([np.zeros(900, dtype=np.int16)], r"X\[0\]: int16 samples .* by X / 32768"),
        (np.zeros((2, 900), dtype=np.int16), r"X: int16 samples"),
        ([np.full(900, 1 << 30)], r"X\[0\]: int64 samples"),
        (np.array([b"RIFF\0\0"]), r"X: dtype \|S6 cuts off zeros .* dtype=object"),
        (np.array([["a.wav", "b.wav"]]), r"X: has the shape \(1, 2\), .* take X\[:, \[k\]\]"),
        (
            pd.DataFrame({"age": [3], "path": ["a.wav"], "dog": [True]}),
            r"X: has the columns age, path, dog; select the one of recordings, such as "
            r"X\[\['path'\]\], or ColumnTransformer",
        ),
    ],
)
def test_what_is_no_list_of_clips_is_refused(given, message):
    with pytest.raises(at.ParameterError, match=message):
        at.AudioFeatures().fit(given)
    if not hasattr(given, "send"):
        with pytest.raises(at.ParameterError, match=message):
            at.AudioFeatures(on_error="nan").transform(given)


def test_settings_count_from_the_next_fit_on(files):
    transformer = at.AudioFeatures("rms", sample_rate=16000).fit(files)
    rows = transformer.transform(files)
    transformer.set_params(sample_rate=8000, features="summary")
    np.testing.assert_array_equal(transformer.transform(files), rows)
    assert transformer.set_params(sample_rate=RATE).fit(files).transform(files).shape == (6, 270)


def test_widths_differ_only_in_a_list(files):
    short, long = np.stack([noise(0.5)]), np.stack([noise(0.7)])
    transformer = at.AudioFeatures("rms").fit(short)
    with pytest.raises(at.ParameterError, match=r"clips of different lengths come in a list"):
        transformer.transform(long)
    np.testing.assert_array_equal(
        transformer.transform(list(long)), at.AudioFeatures("rms").transform(long)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "sumary"}, r"features='sumary': .* must be one of summary, mfcc_stats,"),
        ({"features": ["summary", "rms"]}, r"'summary' must be .* a FeatureUnion joins them"),
        ({"features": []}, r"features=\[\]: must be one or more names, each once"),
        ({"features": ["rms", "rms"]}, r"must be one or more names, each once"),
        ({"features": 3}, r"features=3: must be a name, a list of names, or a front end"),
        ({"features": SummaryVector}, r"must be a name, a list of names, or a front end"),
        ({"features": nn.Identity()}, r"features=Identity: has no attribute 'sample_rate'"),
        (
            {"features": SummaryVector(16000)},
            r"sample_rate=22050: SummaryVector expects 16000 Hz; give both one rate",
        ),
        ({"sample_rate": 0}, r"sample_rate=0: must be an integer above 0"),
        ({"sample_rate": 22050.0}, r"sample_rate=22050\.0: must be an integer"),
        ({"sample_rate": 100}, r"sample_rate=100: not for these features .* such as 22050"),
        (
            {"features": "cqt", "sample_rate": 4000},
            r"sample_rate=4000: not for these features .* such as 22050",
        ),
        ({"sample_rate": None}, r"sample_rate=None: must be"),
        ({"min_duration": -1}, r"min_duration=-1: must be at least 0, below an hour"),
        ({"min_duration": None}, r"min_duration=None: must be"),
        ({"min_duration": float("nan")}, r"min_duration=nan: must be"),
        ({"batch_size": 0}, r"batch_size=0: must be an integer above 0"),
        ({"on_error": "skip"}, r"on_error='skip': must be 'raise' or 'nan'"),
        ({"device": "cuda:99"}, r"device='cuda:99': torch cannot use it"),
        ({"device": "gpu"}, r"device='gpu': torch cannot use it"),
    ],
)
def test_settings_are_refused_in_fit_and_transform(settings, message):
    transformer = at.AudioFeatures(**settings)
    for method in (transformer.fit, transformer.transform):
        with pytest.raises(at.ParameterError, match=message):
            method([noise(0.5)])


def test_named_in_the_package_without_being_loaded():
    assert "AudioFeatures" in dir(at)
    with pytest.raises(AttributeError, match="has no attribute 'AudioFeature'"):
        at.AudioFeature  # noqa: B018


def test_one_column_of_several_in_a_column_transformer(digits):
    few = digits[::12]
    found = ColumnTransformer([("audio", at.AudioFeatures("rms"), ["path"])]).fit_transform(few)
    np.testing.assert_array_equal(found, at.AudioFeatures("rms").transform(few["path"]))
