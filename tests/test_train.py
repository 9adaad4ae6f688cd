import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from audiotorch.audio import Normalize, load
from audiotorch.data.demo import write_corpus
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.export import load_pipeline, read_metadata
from audiotorch.models import MLP, Ensemble
from audiotorch.pipeline import predict
from audiotorch.training.board import flatten
from audiotorch.training.build import build, config_dir
from audiotorch.training.checkpoint import (
    _head,
    build_pipeline,
    find_checkpoint,
    load_checkpoint_pipeline,
    read_checkpoint,
    take_weights,
)
from audiotorch.training.tasks import ClassificationTask
from audiotorch.training.train import main, train

Run = Callable[..., tuple[Path, dict[str, Any]]]
SMALL = (
    "features=word_image",
    "features.n_frames=16",
    "features.n_mels=16",
    "model.channels=[4,8]",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight classes of ten clips, one from each of ten devices."""
    root = tmp_path_factory.mktemp("corpus") / "sounds"
    write_corpus(root, n_devices=10, n_takes=1)
    return root


@pytest.fixture(scope="session")
def some_classes(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the classes in folders, without device names."""
    root = tmp_path_factory.mktemp("classes")
    for label in ("rise", "fall", "steps"):
        (root / label).mkdir()
        for k, file in enumerate(sorted((corpus / label).glob("*.flac"))):
            shutil.copyfile(file, root / label / f"take-{k}.flac")
    return root


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.fixture
def run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Train small on the corpus; files are exported where a test asks for them only."""

    def start(name: str, *overrides: str, small: Sequence[str] = SMALL) -> tuple[Path, Any]:
        config = composed("data=demo", f"data.root={corpus}", *DEMO, *small, *overrides)
        return tmp_path / name, train(config, tmp_path / name)

    monkeypatch.setattr("audiotorch.training.results.export", lambda *_, **__: None)
    return start


WORKERS = ("data.num_workers=2",)
DEMO = ("data.n_devices=10", "data.n_takes=1")


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run by the command line's entry."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    status = main(
        ["experiment=demo", f"data.root={corpus}", *DEMO, *SMALL, f"hydra.run.dir={run_dir}"]
    )
    assert status == 0
    return run_dir


def state_of(run_dir: Path, name: str = "last") -> dict[str, Any]:
    return read_checkpoint(run_dir / "checkpoints" / f"{name}.ckpt")


def assert_same(left: Any, right: Any) -> None:
    """Bit for bit equal, through dicts and lists."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right


def test_run_directory_is_complete(finished: Path):
    names = {path.name for path in finished.iterdir()}
    assert {"model.ts", "model.pt2", "metrics.json", "config.yaml", "checkpoints", "tb"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }
    config = OmegaConf.load(finished / "config.yaml")
    assert config.data.sample_rate == config.features.sample_rate == 16000
    assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(config, resolve=True)


def test_figures_are_pictures(finished: Path):
    from matplotlib.image import imread

    for name in ("confusion", "predictions"):
        picture = imread(finished / "figures" / f"{name}.png")
        assert picture.ndim == 3
        assert picture.std() > 0.05


def test_metrics_file_has_the_figures(finished: Path):
    metrics = json.loads((finished / "metrics.json").read_text())
    for stage in ("val", "test"):
        assert 0 <= metrics[f"{stage}/acc"] <= 1
        assert 0 <= metrics[f"{stage}/ece"] <= 1
        recall = metrics[f"{stage}/recall"]
        matrix = metrics[f"{stage}/confusion_matrix"]
        n = metrics[f"{stage}_clips"]
        assert sum(map(sum, matrix)) == n
        correct = sum(matrix[k][k] for k in range(len(matrix)))
        assert metrics[f"{stage}/acc"] == pytest.approx(correct / n)
        assert len(recall) == len(matrix) == 8
    assert metrics["train_clips"] + metrics["val_clips"] + metrics["test_clips"] == 80
    assert metrics["epochs"] == 2
    assert metrics["seconds"] > 0
    assert metrics["versions"]["torch"] == torch.__version__
    assert read_metadata(finished / "model.ts")["metrics"]["test/acc"] == metrics["test/acc"]


def test_output_names_accuracy_and_run_directory(
    corpus: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    arguments = [f"data.root={corpus}", *DEMO, *SMALL, "trainer.max_epochs=1"]
    assert main(["data=demo", *arguments, f"hydra.run.dir={tmp_path / 'seen'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    metrics = json.loads((tmp_path / "seen" / "metrics.json").read_text())
    assert lines[-1] == f"run directory: {tmp_path / 'seen'}"
    assert f"test accuracy: {metrics['test/acc']:.4g}" in lines


def test_exported_file_is_the_best_checkpoint_with_averaged_weights(finished: Path):
    scripted = load_pipeline(finished / "model.ts")
    rebuilt = load_checkpoint_pipeline(finished)
    waveform = 0.1 * torch.randn(3, 6000)
    lengths = torch.tensor([6000, 5000, 4100])
    with torch.no_grad():
        answers = scripted(waveform, lengths)
        torch.testing.assert_close(answers, rebuilt(waveform, lengths), atol=1e-6, rtol=0)
    assert find_checkpoint(finished).name == "best.ckpt"
    best = state_of(finished, "best")["state_dict"]
    assert torch.equal(rebuilt.model.head.weight, best["average.module.head.weight"])
    assert not torch.equal(rebuilt.model.head.weight, best["pipeline.model.head.weight"])
    assert list(scripted.labels) == rebuilt.labels


@pytest.mark.parametrize("keep_best", [True, False])
def test_killed_and_resumed_run_ends_in_the_same_weights(
    run: Run, monkeypatch: pytest.MonkeyPatch, keep_best: bool
):
    settings = [
        "trainer.max_epochs=3",
        "data.augment.mixup=0.3",
        "data.augment.noise_snr_db=[5,20]",
        "data.augment.formant=0.1",
        "data.max_duration=0.8",
        "features.normalize=dataset",
        # Few groups, and workers, which fetch ahead of what they are told.
        *([] if keep_best else ["data.test_group=[device00,device01,device02]", *WORKERS]),
    ]
    straight, metrics = run("straight", *settings)

    def killed(self: ClassificationTask) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "on_train_epoch_start", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run("first", *settings)
    first = find_checkpoint(straight.parent / "first", ("last",))
    assert read_checkpoint(first)["epoch"] == 0
    torch.manual_seed(99)
    resumed, again = run("second", *settings, f"ckpt_path={straight.parent / 'first'}")
    for name in ("last", "best") if keep_best else ("last",):
        ours, theirs = state_of(straight, name), state_of(resumed, name)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            assert_same(ours[part], theirs[part])
    timing = {"seconds"}
    assert_same(
        {k: v for k, v in metrics.items() if k not in timing},
        {k: v for k, v in again.items() if k not in timing},
    )


def test_best_checkpoint_of_before_the_kill_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch):
    # No learning: later epochs are never better than the first.
    still = ["task.optimizer.lr=0.0", "task.ema_decay=null", "model.dropout=0.0"]
    first, _ = run("first", *still, "trainer.max_epochs=1")
    second, metrics = run("second", *still, "trainer.max_epochs=2", f"ckpt_path={first}")
    assert find_checkpoint(second).name == "best.ckpt"
    assert metrics["epochs"] == 2
    assert (second / "checkpoints" / "best.ckpt").is_file()


def test_resuming_a_finished_run_hands_out_its_weights(run: Run):
    fixed = ["data.test_group=[device00,device01,device02]", "trainer.max_epochs=1"]
    first, metrics = run("first", *fixed)
    second, again = run("second", *fixed, f"ckpt_path={first}")
    assert_same(state_of(first)["optimizer_states"], state_of(second)["optimizer_states"])
    assert again["test/acc"] == metrics["test/acc"]


def test_a_directory_used_again_keeps_no_best_checkpoint_of_the_earlier_run(run: Run):
    run_dir, _ = run("run", "trainer.max_epochs=1")
    assert find_checkpoint(run_dir).name == "best.ckpt"
    stale = [run_dir / "checkpoints" / "fitted.skops", run_dir / "figures" / "importance.png"]
    for file in stale:
        file.touch()
    run("run", "trainer.max_epochs=1", "data.validation=none")
    assert find_checkpoint(run_dir).name == "last.ckpt"
    assert not any(file.exists() for file in stale)


def test_resuming_with_other_labels_is_refused(run: Run, some_classes: Path):
    first, _ = run("first", "trainer.max_epochs=1")
    with pytest.raises(ParameterError, match=r"that run has the labels .* model.init_from="):
        run(
            "second",
            "data._target_=audiotorch.data.datamodule.AudioDataModule",
            "~data.n_devices",
            "~data.n_takes",
            "~data.corpus_seed",
            f"data.root={some_classes}",
            f"ckpt_path={first}",
        )


def test_resuming_with_another_network_is_refused(run: Run):
    first, _ = run("first", "trainer.max_epochs=1")
    with pytest.raises(ParameterError, match=r"another network; .* model.init_from="):
        run("second", "task.ema_decay=null", f"ckpt_path={first}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.optimizer.lr=-1", "task.optimizer: Invalid learning rate: -1"),
        ("trainer.accelerator=abacus", "lightning.Trainer: .*abacus.*; check its keys"),
        ("model.dropout=5", "dropout probability has to be between 0 and 1, but got 5"),
    ],
)
def test_values_that_torch_or_lightning_refuse_are_told(run: Run, override: str, message: str):
    with pytest.raises(ParameterError, match=message):
        run("run", "trainer.max_epochs=1", override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=mlp", "features=mfcc_stats"], r"the features need 0\.186 s; raise one"),
        (["model=mlp", "data.batch_size=1"], r"data\.batch_size=1: must be at least 2"),
    ],
)
def test_sizes_that_do_not_suffice_are_refused(run: Run, overrides: list[str], message: str):
    with pytest.raises(ParameterError, match=message):
        run("run", "pipeline.min_duration=0", *overrides, small=())


def test_fine_tuning_takes_the_body_and_a_new_head(
    finished: Path, caplog: pytest.LogCaptureFixture
):
    config = composed("data=demo", *SMALL)
    pipeline = build_pipeline(config, ["fall", "rise", "steps"])
    before = {name: value.clone() for name, value in pipeline.model.state_dict().items()}
    with caplog.at_level(logging.INFO):
        take_weights(pipeline, finished)
    earlier = load_checkpoint_pipeline(finished).model.state_dict()
    for name, value in pipeline.model.state_dict().items():
        source = before if name.startswith("head") else earlier
        assert torch.equal(value, source[name]), name
    assert f"{len(before) - 2} of {len(before)} tensors taken" in caplog.text
    assert "new: head.weight, head.bias" in caplog.text


def test_fine_tuning_with_as_many_other_labels_has_a_new_head(finished: Path):
    config = composed("data=demo", *SMALL)
    labels = load_checkpoint_pipeline(finished).labels
    renamed = build_pipeline(config, [f"new {label}" for label in labels])
    same = build_pipeline(config, labels)
    for pipeline in (renamed, same):
        take_weights(pipeline, finished / "checkpoints" / "last.ckpt")
    last = state_of(finished)["state_dict"]["average.module.head.weight"]
    assert torch.equal(same.model.head.weight, last)
    assert not torch.equal(renamed.model.head.weight, last)


def test_every_member_has_a_new_head():
    model = Ensemble(3, (12,), member=MLP, n_members=2)
    assert _head(model, 3) == {
        f"members.{k}.layers.4.{kind}" for k in (0, 1) for kind in ("weight", "bias")
    }


def test_fine_tuning_trains(finished: Path, some_classes: Path, tmp_path: Path, run: Run):
    run_dir = tmp_path / "tuned"
    arguments = [f"data.root={some_classes}", *SMALL, f"hydra.run.dir={run_dir}"]
    assert main([*arguments, f"model.init_from={finished}"]) == 0
    assert load_checkpoint_pipeline(run_dir).labels == ["fall", "rise", "steps"]


def test_weights_of_another_model_are_refused(finished: Path):
    pipeline = build_pipeline(composed("data=demo", *SMALL[:3], "model=linear"), ["a", "b"])
    with pytest.raises(ParameterError, match=r"must hold weights of the same model"):
        take_weights(pipeline, finished)


def test_few_groups_mean_a_fixed_schedule(run: Run, caplog: pytest.LogCaptureFixture):
    groups = "data.test_group=[device00,device01,device02]"
    run_dir, metrics = run("few", groups, "trainer.max_epochs=1")
    assert (metrics["fixed_schedule"], metrics["validation"]) == (True, "clip")
    assert "val/acc" in metrics
    assert find_checkpoint(run_dir).name == "last.ckpt"
    run_dir, metrics = run(
        "none", "data.validation=none", "early_stopping_patience=1", "trainer.max_epochs=1"
    )
    assert metrics["fixed_schedule"]
    assert "val/acc" not in metrics
    assert "test/acc" in metrics
    assert not (run_dir / "checkpoints" / "best.ckpt").exists()
    assert "early_stopping_patience=1 is ignored" in caplog.text


def test_early_stopping_stops(run: Run):
    _, metrics = run(
        "stopped",
        "early_stopping_patience=1",
        "task.optimizer.lr=0.0",
        "task.ema_decay=null",
        "trainer.max_epochs=6",
    )
    assert metrics["epochs"] < 6


def test_normalisation_is_fitted_on_training_clips_only(run: Run, corpus: Path):
    overrides = ["features.normalize=dataset", "trainer.max_epochs=1", "data.augment.gain_db=20"]
    overrides += ["pipeline.preprocess={_target_: audiotorch.Normalize}"]
    run_dir, _ = run("normalised", *overrides)
    rebuilt = load_checkpoint_pipeline(run_dir)
    config = composed("data=demo", f"data.root={corpus}", *DEMO, *SMALL, *overrides)
    data = build(config.data)
    data.setup()
    features = build(config.features)
    clips = [Normalize()(data.train_set[k][0][None])[0] for k in range(len(data.train_set))]
    levels = [features.log_mel(clip)[0] for clip in clips]
    frames = torch.cat(levels, dim=1).double()
    torch.testing.assert_close(
        rebuilt.features.mean[:, 0].double(), frames.mean(1), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        rebuilt.features.std[:, 0].double(), frames.std(1, unbiased=False), atol=1e-3, rtol=0
    )


def test_preprocessing_is_in_the_file_and_predict_applies_it(corpus: Path, tmp_path: Path):
    arguments = ["experiment=demo", "preprocess=clean", f"data.root={corpus}", *DEMO, *SMALL]
    assert main([*arguments, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path}"]) == 0
    steps = read_metadata(tmp_path / "model.ts")["preprocess"]
    assert [step["type"] for step in steps] == ["ReduceNoise", "RemoveSilence", "Normalize"]
    pipeline = load_checkpoint_pipeline(tmp_path)
    cleaning = pipeline.preprocess
    pipeline.preprocess = type(cleaning)([])
    for file in sorted(corpus.rglob("*.flac"))[::17]:
        waveform = load(file, pipeline.sample_rate)[0]
        cleaned, lengths = cleaning(waveform, torch.tensor([waveform.shape[1]]))
        with torch.no_grad():
            expected = pipeline(cleaned, lengths)[0].tolist()
        (answer,) = predict(load_pipeline(tmp_path / "model.ts"), file)
        assert list(answer.probabilities.values()) == pytest.approx(expected, abs=1e-5)


def test_fast_dev_run(run: Run):
    _, metrics = run("fast", "trainer.fast_dev_run=true", "model=mlp", small=SMALL[:3])
    assert metrics["n_parameters"] > 0


def test_multirun(corpus: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]):
    arguments = ["data=demo", f"data.root={corpus}", *DEMO, "features=word_image"]
    arguments += ["trainer.max_epochs=1", "trainer.accelerator=cpu"]
    status = main(["-m", *arguments, "model=linear,mlp", f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    assert status == 0
    for job in ("0", "1"):
        assert (tmp_path / "sweep" / job / "metrics.json").is_file()
    assert capsys.readouterr().out.count("run directory: ") == 2


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["trainer.max_epoch=3"], "'trainer.max_epoch': did you mean 'trainer.max_epochs'?"),
        (["max_epochs=3"], "did you mean 'trainer.max_epochs'?"),
        (["modell=cnn"], "unknown setting 'modell': did you mean 'model'?"),
        (["model=cn"], "unknown choice model=cn: did you mean 'cnn'? available: autoencoder_conv"),
        (["experiment=speech"], "available: anomaly_demo, commands, commands_classic, demo,"),
        (["experiment=fsdd"], "environment variable AUDIOTORCH_DATA is not set"),
        (["data.root=/nowhere"], "'/nowhere': must be an existing folder"),
        ([], "data.root=FOLDER"),
        (["data.root"], "Error parsing override 'data.root'"),
        (["experiment=null"], "a group cannot be null"),
        (["trainer.max_epochs=many"], "trainer.max_epochs='many': must be a number, such as 30"),
        (["data.balanced=perhaps"], "data.balanced='perhaps': must be true or false"),
        (["model.channels=8"], "model.channels=8: must be a list, such as [16, 32, 64, 128]"),
        (["+data.speaker=x"], "unexpected keyword argument 'speaker'"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: must be a whole number from 1"),
        (["trainer.max_epochs=1.5"], "trainer.max_epochs=1.5: must be a whole number from 1"),
        (["seed=-1"], "seed=-1: must be a whole number from 0 to 4294967295"),
        (["early_stopping_patience=x"], "early_stopping_patience='x': must be a whole number"),
        (["data.root="], "root='': must be an existing folder"),
        (["data.root=[a,b]"], "root=['a', 'b']: must be one name"),
        (["data.root=a", "data.cache_gb=null"], "cache_gb=None: must be finite"),
        (["data.regex=(x"], "Error parsing override 'data.regex=(x': write NAME=VALUE; a value"),
        (["model.name=x"], "unknown setting 'model.name': only other choices of model= have it"),
        (["trainer.log_every_n_steps=null"], "trainer.log_every_n_steps=None: must be a whole"),
        (["ckpt_path=/nowhere"], "checkpoint '/nowhere': must be a checkpoint or a run directory"),
    ],
)  # fmt: skip
def test_wrong_use_ends_in_one_line(
    overrides: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.delenv("AUDIOTORCH_DATA", raising=False)
    assert main([*overrides, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("audiotorch train: ")
    assert text in lines[0]


def test_script_ends_in_one_line_and_status_two(tmp_path: Path):
    script = Path(__file__).parents[1] / "scripts" / "train.py"
    command = [sys.executable, str(script), "data.root=/nowhere", f"hydra.run.dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "audiotorch train: root='/nowhere': must be an existing folder; check data.root"
    ]


def test_two_processes_train_one_model(corpus: Path, tmp_path: Path):
    script = Path(__file__).parents[1] / "scripts" / "train.py"
    overrides = ["data=demo", f"data.root={corpus}", *DEMO, "features=mfcc_stats", "model=linear"]
    overrides += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    overrides += ["trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}"]
    result = subprocess.run(
        [sys.executable, str(script), *overrides], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("run directory: ") == 1
    assert state_of(tmp_path / "run")["global_step"] == 1
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test_clips"] == 16


def raising(error: BaseException) -> Any:
    def job(*_: Any) -> None:
        raise error

    return job


def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    full = OSError(28, "No space left on device", "model.ts")
    monkeypatch.setattr("audiotorch.training.train.train", raising(full))
    assert main([f"hydra.run.dir={tmp_path}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["audiotorch train: [Errno 28] No space left on device: 'model.ts'"]


def test_an_interrupt_is_told_and_has_its_own_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # Lightning ends the process with status 1 and no word.
    stopped = SystemExit(1)
    stopped.__context__ = KeyboardInterrupt()
    monkeypatch.setattr("audiotorch.training.train.train", raising(stopped))
    assert main([f"hydra.run.dir={tmp_path}"]) == 130
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["audiotorch train: interrupted; networks go on with ckpt_path=RUN_DIR"]


def test_unexpected_errors_keep_their_traceback(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("audiotorch.training.train.train", broken)
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        main([f"data.root={corpus}", f"hydra.run.dir={tmp_path}"])


def test_damaged_and_foreign_checkpoints_are_refused(finished: Path, tmp_path: Path):
    whole = (finished / "checkpoints" / "last.ckpt").read_bytes()
    short = tmp_path / "short.ckpt"
    short.write_bytes(whole[: len(whole) // 2])
    text = tmp_path / "text.ckpt"
    text.write_text("no checkpoint")
    empty = tmp_path / "empty.ckpt"
    empty.touch()
    other = tmp_path / "other.ckpt"
    torch.save({"weight": torch.zeros(2)}, other)
    for path in (short, text, empty, other):
        with pytest.raises(DecodeError, match=rf"{path.name}' is not a checkpoint"):
            load_checkpoint_pipeline(path)
    with pytest.raises(ParameterError, match=r"must be a checkpoint or a run directory"):
        load_checkpoint_pipeline(tmp_path)


@pytest.mark.parametrize(
    "target",
    [
        "subprocess.Popen",
        "audiotorch.training.train.shutil.rmtree",
        "audiotorch.audio.io.os.system",
    ],
)
def test_a_checkpoint_does_not_choose_what_runs(finished: Path, tmp_path: Path, target: str):
    checkpoint = state_of(finished)
    checkpoint["audiotorch"]["config"]["model"] = {"_target_": target, "args": ["false"]}
    path = tmp_path / "foreign.ckpt"
    torch.save(checkpoint, path)
    with pytest.raises(DecodeError, match=r"must be a module of audiotorch"):
        load_checkpoint_pipeline(path)


def test_a_checkpoint_that_does_not_fit_its_configuration(finished: Path, tmp_path: Path):
    checkpoint = state_of(finished)
    checkpoint["audiotorch"]["config"]["model"]["channels"] = [4, 16]
    path = tmp_path / "other.ckpt"
    torch.save(checkpoint, path)
    with pytest.raises(DecodeError, match=r"does not fit its own configuration"):
        load_checkpoint_pipeline(path)


def test_flatten_names_every_setting():
    flat = flatten({"a": {"b": [1, 2], "c": {"d": True}}, "e": None})
    assert flat == {"a.b": "[1, 2]", "a.c.d": True, "e": "None"}
