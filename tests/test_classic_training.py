"""`model=random_forest` and its like: the same entry, run directory and files as networks have."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from sklearn.metrics import confusion_matrix, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from audiotorch.answers import AnswerTable, predict
from audiotorch.cli import main as audiotorch
from audiotorch.data.datamodule import AudioDataModule
from audiotorch.data.demo import write_corpus
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.export import load_pipeline
from audiotorch.models.classic import CLASSIFIERS, build_classifier, fit_classifier
from audiotorch.models.storage import load_fitted, read_notes, save_fitted
from audiotorch.models.tensorize import steady
from audiotorch.pipeline import Pipeline
from audiotorch.training.augment import Augment
from audiotorch.training.build import build_pipeline, config_dir
from audiotorch.training.checkpoint import load_checkpoint_pipeline
from audiotorch.training.train import main, train
from audiotorch.training.vectors import compute_vectors

Run = Callable[..., dict[str, Any]]
SMALL = ("data=demo", "data.n_devices=6", "data.n_takes=2", "features=mfcc_stats")
TEST = "data.test_group=device05"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight classes, two clips of each from each of six devices."""
    root = tmp_path_factory.mktemp("corpus") / "sounds"
    write_corpus(root, n_devices=6, n_takes=2)
    return root


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run by the command line's entry."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    settings = [*SMALL, TEST, "model=random_forest", f"data.root={corpus}"]
    assert main([*settings, "task.abstain=0.6", f"hydra.run.dir={run_dir}"]) == 0
    return run_dir


@pytest.fixture
def run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Train without exporting."""

    def start(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose("train", [*SMALL, f"data.root={corpus}", *overrides])
        return train(config, tmp_path / "run")

    monkeypatch.setattr("audiotorch.training.results.export", lambda *_, **__: None)
    return start


def test_run_directory_is_complete(finished: Path):
    names = {path.name for path in finished.iterdir()}
    assert {"model.ts", "model.pt2", "metrics.json", "config.yaml", "checkpoints", "tb"} <= names
    assert [path.name for path in (finished / "checkpoints").iterdir()] == ["fitted.skops"]
    assert {path.name for path in (finished / "figures").iterdir()} == {
        "confusion.png",
        "confusion_cv.png",
        "confusion_cv_grouped.png",
        "importance.png",
        "predictions.png",
        "reliability.png",
    }


def test_metrics_file_has_both_protocols_and_the_test(finished: Path):
    metrics = json.loads((finished / "metrics.json").read_text())
    for name, n_clips in (("cv", 80), ("cv_grouped", 80), ("test", 16)):
        assert np.sum(metrics[f"{name}/confusion_matrix"]) == n_clips
        low, high = metrics[f"{name}/acc_interval"]
        assert 0 <= low <= metrics[f"{name}/acc"] <= high <= 1
        assert metrics[f"{name}/f1"] > 0.3
        assert set(metrics[f"{name}/recall"]) == set(metrics[f"{name}/report"])
    assert metrics["cv/protocol"] == "stratified"
    assert metrics["cv_grouped/protocol"] == "leave_one_group_out"
    assert [fold["names"] for fold in metrics["cv_grouped/folds"]] == [
        [f"device{k:02d}"] for k in range(5)
    ]
    assert (metrics["train_clips"], metrics["test_clips"]) == (80, 16)
    assert {"delta_mfcc_mean", "mfcc_std"} < set(metrics["importance"])
    assert "scikit-learn" in metrics["versions"]
    assert 0 < metrics["cv_grouped/answered"] < 1
    assert metrics["cv_grouped/answered_acc"] >= metrics["cv_grouped/acc"]


def test_answers_are_those_of_the_figures(finished: Path):
    metrics = json.loads((finished / "metrics.json").read_text())
    table = AnswerTable.read(finished)
    assert table.parts_present == ["cv", "cv_grouped", "test"]
    for name in table.parts_present:
        rows = table.part(name)
        found = confusion_matrix(rows.truth.astype(str), rows.answers.astype(str))
        assert found.tolist() == metrics[f"{name}/confusion_matrix"]
        shares = rows.probabilities
        assert log_loss(rows.targets, shares, labels=range(8)) == pytest.approx(
            metrics[f"{name}/loss"], abs=1e-4
        )
        for file, group, label in zip(rows.files, rows.groups, rows.truth, strict=True):
            assert Path(file).name.startswith(f"{label}_{group}_")
    rows = table.part("cv_grouped")
    for fold in metrics["cv_grouped/folds"]:
        assert rows.right[np.isin(rows.groups, fold["names"])].mean() == pytest.approx(fold["acc"])


def test_cross_validation_is_scikit_learns(finished: Path, corpus: Path):
    _, vectors = recomputed(finished, corpus)
    assert vectors.x.shape == (80, 240)
    folds = StratifiedKFold(5, shuffle=True, random_state=42)
    x = steady(vectors.x)
    scores = cross_val_score(build_classifier("random_forest"), x, vectors.y, cv=folds)
    metrics = json.loads((finished / "metrics.json").read_text())
    assert [fold["acc"] for fold in metrics["cv/folds"]] == pytest.approx(scores.tolist())


def recomputed(finished: Path, corpus: Path) -> tuple[AudioDataModule, Any]:
    data = AudioDataModule(corpus, regex=REGEX, test_group="device05", validation="given")
    data.setup()
    pipeline = load_checkpoint_pipeline(finished)
    return data, compute_vectors(pipeline, data.train_set)


REGEX = r"(?P<label>[^/]+)/[^/]*_(?P<group>device\d+)_\d+\.flac$"


def test_exported_file_gives_scikit_learns_probabilities(finished: Path, corpus: Path):
    module = load_pipeline(finished / "model.ts")
    checkpoint = finished / "checkpoints" / "fitted.skops"
    fitted = load_fitted(checkpoint)
    assert read_notes(checkpoint)["labels"] == module.labels
    data, _ = recomputed(finished, corpus)
    for clips in (data.train_set, data.test_set):
        for i in range(len(clips)):
            waveform = clips[i][0][None]
            with torch.no_grad():
                answer = module(waveform)[0].numpy()
                vector = module.front(waveform)[0].double().numpy()
            np.testing.assert_allclose(answer, fitted.predict_proba(vector)[0], atol=1e-5)


def test_test_figures_are_those_of_the_file(finished: Path, corpus: Path):
    module = load_pipeline(finished / "model.ts")
    files = sorted(corpus.rglob("*device05*.flac"))
    answers = predict(module, files)
    best = [max(a.probabilities, key=lambda k: a.probabilities[k]) for a in answers]
    right = np.mean([label == file.parent.name for label, file in zip(best, files, strict=True)])
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["test/acc"] == pytest.approx(right)
    given = [answer.label is not None for answer in answers]
    assert metrics["test/answered"] == pytest.approx(np.mean(given))


def test_no_label_below_the_confidence_asked_for(finished: Path, corpus: Path, capsys: Any):
    files = sorted(corpus.rglob("*device05*.flac"))
    answers = predict(load_checkpoint_pipeline(finished), files)
    unsure = [answer for answer in answers if answer.label is None]
    assert 0 < len(unsure) < len(answers)
    assert all(answer.error is None and answer.confidence < 0.6 for answer in unsure)
    assert all(answer.confidence >= 0.6 for answer in answers if answer.label is not None)
    assert audiotorch(["predict", str(finished), unsure[0].file]) == 0
    assert "(unsure)" in capsys.readouterr().out
    assert audiotorch(["predict", str(finished), unsure[0].file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] is None


def test_answers_are_explained_by_name(finished: Path, corpus: Path, capsys: Any):
    file = next(corpus.rglob("*device05*.flac"))
    module = load_pipeline(finished / "model.ts")
    whole = predict(module, file, explain=240)[0]
    assert set(whole.contributions) == set(module.features.names)
    sizes = [abs(value) for value in whole.contributions.values()]
    assert sizes == sorted(sizes, reverse=True)
    best = module.labels.index(max(whole.probabilities, key=lambda k: whole.probabilities[k]))
    total = float(module.model.baseline()[best]) + sum(whole.contributions.values())
    assert total == pytest.approx(whole.confidence, abs=1e-6)
    assert predict(module, file, explain=3)[0].contributions == dict(
        list(whole.contributions.items())[:3]
    )
    assert audiotorch(["predict", str(finished), str(file), "--explain", "2"]) == 0
    first = next(iter(whole.contributions))
    assert f"because: {first}" in capsys.readouterr().out
    assert audiotorch(["predict", str(finished), str(file), "--explain", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["contributions"]) == 2


def test_the_checkpoint_exports_again(finished: Path, corpus: Path, tmp_path: Path):
    out = tmp_path / "again.ts"
    assert audiotorch(["export", str(finished), "--out", str(out)]) == 0
    waveform = torch.randn(2, 22050)
    first, again = load_pipeline(finished / "model.ts"), load_pipeline(out)
    torch.testing.assert_close(first(waveform), again(waveform))
    assert again.threshold_names == ["abstain"]


def test_tensorboard_has_figures_pictures_and_sound(finished: Path):
    tags = EventAccumulator(str(finished / "tb")).Reload().Tags()
    assert {"cv/acc", "cv_grouped/acc", "test/f1"} <= set(tags["scalars"])
    pictures = {"importance", "reliability", "cv_grouped/confusion_matrix", "train_input/1"}
    assert pictures <= set(tags["images"])
    # Of the last evaluation with errors, which the test may not have.
    metrics = json.loads((finished / "metrics.json").read_text())
    wrong = [name for name in ("test", "cv_grouped") if metrics[f"{name}/acc"] < 1]
    assert f"{wrong[0]}_hardest/1/sound" in tags["tensors"]
    assert f"{wrong[0]}_hardest/1/picture" in tags["images"]


FEW = {
    "random_forest": "model.n_estimators=30",
    "extra_trees": "model.n_estimators=30",
    "gradient_boost": "model.n_estimators=5",
    "hist_gradient_boost": "model.max_iter=5",
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_model_trains(run: Run, name: str, tmp_path: Path):
    few = [FEW[name]] if name in FEW else []
    metrics = run(f"model={name}", TEST, "task.importance=null", *few)
    assert metrics["cv/acc"] > 0.4
    assert metrics["test/acc"] > 0.3
    pipeline = load_checkpoint_pipeline(tmp_path / "run")
    assert type(pipeline.model).__name__ == "ClassicModel"


@pytest.mark.parametrize("calibration", ["isotonic", "temperature", "sigmoid"])
def test_calibrated_models_train(run: Run, calibration: str):
    metrics = run("model=logistic", f"model.calibration={calibration}", "task.importance=null")
    assert metrics["cv_grouped/acc"] > 0.4
    assert metrics["importance"] == {}


def test_images_are_pooled(run: Run, tmp_path: Path):
    metrics = run("model=logistic", "features=mel_image", "task.importance=features")
    assert len(metrics["importance"]) == 4 * 64
    assert "mel_std_63" in metrics["importance"]
    pipeline = load_checkpoint_pipeline(tmp_path / "run")
    assert pipeline(torch.randn(3, 22050)).shape == (3, 8)


def test_all_clips_are_fitted_on_where_nothing_is_held_out(run: Run):
    metrics = run("model=knn")
    assert (metrics["train_clips"], metrics["val_clips"], metrics["validation"]) == (64, 0, "none")
    assert not [key for key in metrics if key.startswith("val/")]


def test_a_validation_part_is_scored(run: Run):
    metrics = run("model=knn", "data.validation=group")
    assert metrics["val_clips"] > 0
    assert 0 <= metrics["val/acc"] <= 1


def test_the_wanted_accuracy_sets_the_threshold(run: Run, tmp_path: Path):
    metrics = run("model=logistic", "task.abstain_accuracy=0.99", "task.importance=null")
    assert metrics["cv_grouped/answered_acc"] >= 0.99
    assert metrics["abstain"] > 0
    assert load_checkpoint_pipeline(tmp_path / "run").thresholds.tolist() == [
        pytest.approx(metrics["abstain"])
    ]


def folds_of(corpus: Path, groups: dict[str, list[str | None]], path: Path) -> list[str]:
    """Settings for a table of clips: of each class, one for each of its groups named."""
    rows = ["file,label,group"]
    for label, own in groups.items():
        files = sorted((corpus / label).glob("*.flac"))
        rows += [f"{file},{label},{g or ''}" for file, g in zip(files, own, strict=False)]
    path.write_text("\n".join(rows))
    return ["data=default", f"data.manifest={path}", "data.group_column=group"]


def test_a_class_of_one_group_does_not_end_the_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without group `one`, there is nothing but falls to fit on."""
    monkeypatch.setattr("audiotorch.training.results.export", lambda *_, **__: None)
    groups: dict[str, Any] = {"rise": ["one"] * 4, "fall": ["one", "two", "two", "three"]}
    table = folds_of(corpus, groups, tmp_path / "table.csv")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["model=knn", "features=mfcc_stats", *table])
    stale = [
        tmp_path / "run" / name for name in ("figures/predictions.png", "checkpoints/best.ckpt")
    ]
    for file in stale:
        file.parent.mkdir(parents=True)
        file.touch()
    metrics = train(config, tmp_path / "run")
    assert not any(file.exists() for file in stale)
    assert metrics["importance"]
    assert "classes with clips of one group only" in metrics["cv_grouped/notes"][0]


def test_copies_are_fitted_on_and_not_scored(run: Run):
    plain = run("model=knn", "task.importance=null")
    copied = run("model=knn", "task.importance=null", "task.copies=1", "data.augment.speed=[0.9]")
    assert copied["copies"] == 1
    assert np.sum(copied["cv/confusion_matrix"]) == 64
    assert copied["cv/loss"] != plain["cv/loss"]


def front_end(labels: list[str]) -> Pipeline:
    """A Pipeline whose model is still to be fitted."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", [*SMALL])
    return build_pipeline(config, labels, model=torch.nn.Identity()).eval()


def test_copies_of_a_clip_are_alike_in_every_run(corpus: Path):
    data = AudioDataModule(corpus, regex=REGEX, sample_rate=22050)
    data.setup()
    pipeline = front_end(data.labels)
    augment = Augment(22050, gain_db=6.0, speed=(0.9, 1.1))
    one = compute_vectors(pipeline, data.train_set, 1, augment, seed=1)
    two = compute_vectors(pipeline, data.train_set, 2, augment, seed=1)
    np.testing.assert_array_equal(one.x, two.x)
    np.testing.assert_array_equal(one.copies[0], two.copies[0])
    assert np.abs(two.copies[0] - two.copies[1]).max() > 1


def test_a_search_chooses_settings(run: Run):
    pytest.importorskip("optuna")
    metrics = run("model=knn", "task.search_trials=3")
    assert metrics["settings"]
    assert all("settings" in fold for fold in metrics["cv/folds"])


def test_leakage_is_said(run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: Any):
    monkeypatch.setattr("audiotorch.training.classic.leakage", lambda _: "Leakage: expect less.")
    with caplog.at_level(logging.INFO):
        metrics = run("model=knn")
    assert metrics["leakage"] == "Leakage: expect less."
    assert "each group left out" in caplog.text
    assert "Leakage: expect less." in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ckpt_path=runs/x"], "has no epochs to resume"),
        (["task.folds=1"], "task.folds=1"),
        (["task.importance=all"], "task.importance='all'"),
        (["task.abstain=2"], "task.abstain=2"),
        (["task.abstain=0.5", "task.abstain_accuracy=0.9"], "give one of the two"),
        (["task.copies=1", "data.augment=null"], "needs data.augment"),
        (["model.calibration=platt"], "calibration='platt'"),
        (["+model.n_trees=5"], "no setting 'n_trees'"),
        (
            ["task.copies=1", "data.augment.gain_db=0", "data.augment.time_shift=0"],
            "task.copies=1: data.augment leaves",
        ),
        (["model.scale=flase"], "model.scale='flase': must be true"),
        (["task.abstain_accuracy=0"], "task.abstain_accuracy=0: must be above 0"),
        (["trainer.accelerator=tpu"], "trainer.accelerator='tpu': torch cannot"),
    ],
)
def test_wrong_settings_are_refused(run: Run, overrides: list[str], message: str):
    with pytest.raises(ParameterError, match=message):
        run("model=knn", *overrides)


@pytest.mark.parametrize("rate", ["${nothing.here}", "${oc.env", 10**15])
def test_a_checkpoint_that_does_not_fit_its_configuration_is_one_line(tmp_path: Path, rate: Any):
    fitted = fit_classifier(build_classifier("logistic"), np.eye(4), np.array([0, 1, 0, 1]))
    section = {"_target_": "audiotorch.features.SummaryVector", "n_fft": rate}
    notes = {"config": {"features": section}, "labels": ["a", "b"], "thresholds": {}}
    save_fitted(fitted, tmp_path / "fitted.skops", notes)
    with pytest.raises(DecodeError, match="does not fit its own configuration"):
        load_checkpoint_pipeline(tmp_path / "fitted.skops")


def test_only_some_models_explain(run: Run, tmp_path: Path, corpus: Path):
    run("model=knn")
    pipeline = load_checkpoint_pipeline(tmp_path / "run")
    with pytest.raises(ParameterError, match="does not say what each feature adds"):
        predict(pipeline, next(corpus.rglob("*.flac")), explain=3)
    for wrong in (-1, 1.5, "3"):
        with pytest.raises(ParameterError, match=f"explain={wrong!r}: must be 0 or the number"):
            predict(pipeline, next(corpus.rglob("*.flac")), explain=wrong)


def test_clips_are_taken_whole_and_copies_cropped(corpus: Path):
    options: dict[str, Any] = {"regex": REGEX, "sample_rate": 22050}
    data = AudioDataModule(corpus, max_duration=0.3, **options)
    whole = AudioDataModule(corpus, **options)
    data.setup()
    whole.setup()
    pipeline = front_end(data.labels)
    found = compute_vectors(pipeline, data.train_set, 1, Augment(22050, gain_db=1.0))
    expected = compute_vectors(pipeline, whole.train_set)
    np.testing.assert_array_equal(found.x, expected.x)
    assert np.abs(found.copies[0] - found.x).max() > 1


def test_a_clip_whose_features_are_not_finite_is_named(corpus: Path):
    data = AudioDataModule(corpus, regex=REGEX, sample_rate=22050)
    data.setup()
    pipeline = front_end(data.labels)
    data.train_set.whole(3)[100] = torch.nan
    with pytest.raises(ParameterError, match=data.train_set.clips[3].path.name):
        compute_vectors(pipeline, data.train_set)
