"""`model=gaussian` and its like: the same entry, run directory and files as classifiers have."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hydra import compose, initialize_config_dir
from sklearn.metrics import roc_auc_score
from torch import Tensor

from audiotorch.answers import AnswerTable
from audiotorch.cli import main as command
from audiotorch.data.datamodule import AudioDataModule
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.export import load_pipeline, read_metadata
from audiotorch.models.conformal import n_held_back, with_room
from audiotorch.models.detection import Detection, evaluate_detection
from audiotorch.models.detectors import anomaly_scores
from audiotorch.models.storage import load_fitted, read_notes, save_fitted
from audiotorch.pipeline import Pipeline
from audiotorch.training.build import config_dir
from audiotorch.training.checkpoint import load_checkpoint_pipeline
from audiotorch.training.train import main, train
from audiotorch.training.vectors import compute_windows, score_clips

RATE = 8000
SMALL = ("features=mfcc_stats", f"features.sample_rate={RATE}", "task.n_bootstrap=20")
SMALL += ("features.n_fft=512", "features.hop_length=128")
Run = Callable[..., dict[str, Any]]


def write_clips(folder: Path, n: int, faulty: bool) -> None:
    """A humming machine in noise, with clicks where it is faulty."""
    folder.mkdir(parents=True)
    for i in range(n):
        rng = np.random.default_rng([i, faulty])
        time = np.arange(RATE) / RATE
        sound = 0.1 * np.sin(2 * np.pi * 120 * time * rng.uniform(0.98, 1.02))
        sound += rng.normal(0, 0.02, RATE)
        if faulty:
            sound[:: RATE // 13] += 0.3
        soundfile.write(folder / f"{i:02}.wav", sound, RATE)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("machine")
    write_clips(root / "normal", 40, faulty=False)
    write_clips(root / "fault", 8, faulty=True)
    return root


@pytest.fixture(scope="module")
def finished(machine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run by the command line's entry."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    rates = "task.false_alarm_rate={warning: 0.2, alarm: 0.05}"
    settings = [*SMALL, "model=gaussian", f"data.root={machine}", rates]
    windows = ["pipeline.window=0.4", "pipeline.hop=0.3", "pipeline.aggregate=max"]
    assert main([*settings, *windows, f"hydra.run.dir={run_dir}"]) == 0
    return run_dir


@pytest.fixture
def run(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Train without exporting."""

    def start(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose("train", [*SMALL, f"data.root={machine}", *overrides])
        return train(config, tmp_path / "run")

    monkeypatch.setattr("audiotorch.training.results.export", lambda *_, **__: None)
    return start


def parts(machine: Path, rate: float = 0.05) -> AudioDataModule:
    """The parts of the data as a run has them."""
    data = AudioDataModule(machine, sample_rate=RATE)
    data.for_detection(lambda n: n_held_back(n, rate))
    data.setup()
    return data


def scores_of(pipeline: Pipeline, machine: Path) -> tuple[Tensor, np.ndarray]:
    """Scores of the held-back clips, and of the test's with targets."""
    data = parts(machine)
    return score_clips(pipeline, data.val_set), np.stack(
        [score_clips(pipeline, data.test_set).numpy(), data.test_set.targets.numpy()]
    )


def test_run_directory_is_complete(finished: Path):
    names = {path.name for path in finished.iterdir()}
    assert {"model.ts", "model.pt2", "metrics.json", "config.yaml", "checkpoints", "tb"} <= names
    assert [path.name for path in (finished / "checkpoints").iterdir()] == ["fitted.skops"]
    assert [path.name for path in (finished / "figures").iterdir()] == ["scores.png"]


def test_figures_are_those_of_the_exported_file(finished: Path, machine: Path):
    metrics = json.loads((finished / "metrics.json").read_text())
    module: Any = load_pipeline(finished / "model.ts")
    held_back, (scores, targets) = scores_of(module, machine)
    assert metrics["held_back"] == len(held_back) == 16
    assert metrics["test/auc"] == pytest.approx(roc_auc_score(targets, scores))
    ordered = np.sort(with_room(held_back.numpy()))
    np.testing.assert_allclose(module.calibration, ordered, rtol=1e-5)
    assert list(module.threshold_names) == ["warning", "alarm"]
    # Of 16 clips, 20 % are 3 of 17, and 5 % cannot be promised: the highest score stands for it.
    assert module.thresholds.tolist() == pytest.approx([ordered[-3], ordered[-1]], rel=1e-5)
    alarm = metrics["thresholds"]["alarm"]
    assert alarm["promised_rate"] == pytest.approx(1 / 17)
    assert "hold back 19" in alarm["note"]
    told = read_metadata(finished / "model.ts")
    assert (told["window"], told["hop"], told["aggregate"]) == (0.4, 0.3, "max")
    assert metrics["thresholds"]["warning"]["promised_rate"] == pytest.approx(3 / 17)


def test_answers_are_those_of_the_figures(finished: Path, machine: Path):
    metrics = json.loads((finished / "metrics.json").read_text())
    table = AnswerTable.read(finished)
    assert table.parts_present == ["train", "held_back", "test"]
    test = table.part("test")
    assert roc_auc_score(test.targets, test.scores) == metrics["test/auc"]
    assert dict(table.thresholds) == {k: v["score"] for k, v in metrics["thresholds"].items()}
    alarm = metrics["test/thresholds"]["alarm"]
    assert int(((test.answers == "anomaly") & (test.targets == 1)).sum()) == alarm["n_detected"]
    assert set(test.truth[test.targets == 1]) == {"fault"}
    assert all(
        Path(file).parent == machine / label
        for file, label in zip(test.files, test.truth, strict=True)
    )
    data = parts(machine)
    assert table.part("held_back").files.tolist() == [str(c.path) for c in data.val_set.clips]
    module: Any = load_pipeline(finished / "model.ts")
    expected = module.p_value(torch.from_numpy(test.scores).float())
    np.testing.assert_allclose(test.p_values, expected)
    assert np.isnan(table.part("train").p_values).all()


def test_no_held_back_clip_rises_above_its_own_calibration_score(finished: Path, machine: Path):
    module: Any = load_pipeline(finished / "model.ts")
    eager = load_checkpoint_pipeline(finished)
    clips = parts(machine).val_set
    scores = score_clips(eager, clips).numpy()
    # Batches, padding and files differ in last bits, here by many of them.
    for moved in (scores * (1 + 1e-6), scores + 1e-6 * scores.max()):
        assert (np.sort(moved) < module.calibration.numpy()).all()
        assert not (moved > module.thresholds[-1].item()).any()
    alone = torch.cat([module(clips.whole(i)[None]) for i in range(len(clips))])
    assert bool((alone.sort()[0] < module.calibration).all())


@pytest.mark.parametrize(
    "changed",
    [
        {"thresholds": {"warning": 2.0, "alarm": 1.0}},
        {"thresholds": {"alarm": [1.0]}},
        {"thresholds": {"alarm": 1e300}},
        {"calibration": [[1.0]]},
        {"calibration": ["loud"]},
        {"normals": [[10**400], [1.0]]},
        {"normals": [[1.0], [1.0]]},
        {"references": [[1.0, 2.0]] * 2},
    ],
)
def test_a_file_that_was_tampered_with_is_one_error(finished: Path, tmp_path: Path, changed):
    file = finished / "checkpoints/fitted.skops"
    save_fitted(load_fitted(file), tmp_path / file.name, {**read_notes(file), **changed})
    with pytest.raises(DecodeError, match="does not fit its own configuration"):
        load_checkpoint_pipeline(tmp_path / file.name)


def test_a_fusion_without_its_references_is_no_detector(finished: Path, tmp_path: Path):
    file = finished / "checkpoints/fitted.skops"
    save_fitted(load_fitted(file) * 2, tmp_path / file.name, read_notes(file))
    with pytest.raises(DecodeError, match="references: 0"):
        load_checkpoint_pipeline(tmp_path / file.name)


def test_the_model_is_scikit_learns(finished: Path, machine: Path):
    pipeline = load_checkpoint_pipeline(finished)
    clips = parts(machine).test_set
    (fitted,) = load_fitted(finished / "checkpoints/fitted.skops")
    expected = [anomaly_scores(fitted, x).max() for x in compute_windows(pipeline, clips)]
    found = score_clips(pipeline, clips)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    exported = score_clips(load_pipeline(finished / "model.ts"), clips)  # type: ignore[arg-type]
    torch.testing.assert_close(exported, found, rtol=1e-5, atol=1e-5)
    assert pipeline.threshold_names == ["warning", "alarm"]
    assert len(pipeline.calibration) == 16
    assert (pipeline.window, pipeline.hop, pipeline.aggregate) == (0.4, 0.3, "max")


@pytest.mark.parametrize(
    "model",
    [
        ("model=isolation_forest",),
        ("model=gmm",),
        ("model=knn", "task=anomaly"),
        ("model=fusion",),
        ("model=fusion", "model.combine=rank"),
        ("model=knn", "task=anomaly", "task.conformal=cross", "task.folds=4"),
    ],
)
def test_detectors_find_the_fault_and_come_back_from_their_checkpoint(
    run: Run, machine: Path, tmp_path: Path, model: tuple[str, ...]
):
    metrics = run(*model)
    assert metrics["test/auc"] > 0.95
    pipeline = load_checkpoint_pipeline(tmp_path / "run")
    if "task.conformal=cross" in model:
        assert metrics["thresholds"]["alarm"]["promised_rate"] >= 0.1
        assert "twice" in metrics["thresholds"]["alarm"]["note"]
        data = AudioDataModule(machine, sample_rate=RATE)
        data.for_detection(lambda n: 0)
        data.setup()
        scores = score_clips(pipeline, data.test_set).numpy()
        assert metrics["test/auc"] == roc_auc_score(data.test_set.targets, scores)
        return
    held_back, (scores, targets) = scores_of(pipeline, machine)
    assert metrics["test/auc"] == roc_auc_score(targets, scores)
    assert pipeline.calibration.tolist() == np.sort(with_room(held_back.numpy())).tolist()


def test_normal_recordings_alone_will_do(machine: Path, tmp_path: Path, run: Run, caplog):
    folder = machine / "normal"
    with caplog.at_level(logging.INFO):
        metrics = run("model=isolation_forest", f"data.root={folder}")
    assert metrics["held_back"] == 19
    assert "at most 5 % false alarms" in caplog.text
    assert not [name for name in metrics if name.startswith("test/")]


def test_too_few_clips_come_with_what_it_takes(run: Run, caplog):
    run("model=gaussian", "task.false_alarm_rate=0.05")
    assert "hold back 19. Half are held back at most: it takes 38 normal clips." in caplog.text


def test_cross_conformal_p_values_are_told_as_they_are(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = [*SMALL, "model=gaussian", f"data.root={machine}", "task.conformal=cross"]
    assert main([*settings, "task.folds=4", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    assert "(cross-conformal, normal clips: 32)" in capsys.readouterr().out
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(RATE), RATE)
    assert command(["detect", str(tmp_path / "run"), str(silence)]) == 0
    # The mean of four p-values, each of 8 clips.
    text = capsys.readouterr().out
    assert "the smallest p-value possible is 0.111" in text
    assert " 0.11111 " in text


def test_a_handful_of_groups_gives_no_interval_without_width(
    run: Run, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    table = tmp_path / "groups.csv"
    files = sorted(machine.rglob("*.wav"))
    rows = [f"{file},{file.parent.name},{i % 3}" for i, file in enumerate(files)]
    table.write_text("\n".join(["file,label,group", *rows]))
    asked: list[dict[str, Any]] = []

    def judge(*scored: Any, **settings: Any) -> Detection:
        asked.append(settings)
        return evaluate_detection(*scored, **settings)

    monkeypatch.setattr("audiotorch.training.anomaly.evaluate_detection", judge)
    data = ("data.root=null", f"data.manifest={table}", "data.group_column=group")
    run("model=gaussian", *data, "data.test_group=[0]")
    # One group drawn anew is the same one.
    assert asked[0]["groups"] is None


def test_cross_validation_is_of_clips_not_windows(run: Run, tmp_path: Path):
    run("model=fusion", "pipeline.window=0.4", "task.folds=3")
    notes = read_notes(tmp_path / "run/checkpoints/fitted.skops")
    n_fitted = 40 - 8 - 16  # less those of the test, and those held back
    assert [len(reference) for reference in notes["references"]] == [n_fitted] * 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("task.false_alarm_rate=0",), "false_alarm_rate.*=0"),
        (("task.false_alarm_rate=5",), "false_alarm_rate.*=5"),
        (("task.false_alarm_rate={}",), "one rate at least"),
        (("task.false_alarm_rate={a: 0.1, b: 0.1}",), "equal rates"),
        (("task.conformal=jackknife",), "conformal='jackknife'"),
        (("task.conformal=cross", "pipeline.window=0.5"), "pipeline.window"),
        (("task.conformal=cross", "model=fusion"), "fusion"),
        (("task.conformal=cross", "features=log_mel"), "features.normalize=dataset"),
        (("model=fusion", "model.members={knn: null, gaussian: null}"), "two detectors"),
        (("data.normal=[calm]",), r"normal=\['calm'\]: must be among the labels"),
        (("ckpt_path=somewhere",), "no epochs to resume"),
        (("pipeline.aggregate=median",), "aggregate='median'"),
        (("pipeline.window=long",), "window='long': must be a number of seconds"),
        (("model=cnn", "task=anomaly"), "CNN: is a classifier; choose model=autoencoder_dense"),
    ],
)
def test_settings_that_cannot_be_are_refused(run: Run, overrides, message):
    with pytest.raises(ParameterError, match=message):
        run("model=isolation_forest", *overrides)
