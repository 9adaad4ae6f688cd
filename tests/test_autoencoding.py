import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.data import DataLoader

from audiotorch.audio import load
from audiotorch.data.dataset import collate
from audiotorch.errors import ParameterError
from audiotorch.pipeline import Pipeline
from audiotorch.training.autoencoder_drawings import draw_prediction
from audiotorch.training.autoencoding import train_autoencoder
from audiotorch.training.blocks import Blocks, BlockSampler, ClipImages
from audiotorch.training.build import build, config_dir
from audiotorch.training.checkpoint import read_checkpoint

MODELS = ("autoencoder_dense", "autoencoder_conv", "autoencoder_idnn")
SMALL = ("features.n_mels=16", "trainer.accelerator=cpu", "trainer.max_epochs=2")


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", list(overrides))


def clips(n: int, seed: int, seconds: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [0.1 * torch.randn(round(16000 * seconds), generator=generator) for _ in range(n)]


def make_data(train: list[Tensor], val: list[Tensor] = (), anomalies: list[Tensor] = ()) -> Any:
    """What training reads of a data module."""

    def part(waveforms: list[Tensor], target: int = 0) -> list[tuple[Tensor, int, int]]:
        return [(waveform, target, k) for k, waveform in enumerate(waveforms)]

    data = SimpleNamespace(train_set=part(train), val_set=part(val), test_set=part(anomalies, 1))
    data.batch_size, data.cache_gb, data.min_duration = 8, 1.0, 0.05
    data.train_dataloader = lambda: DataLoader(data.train_set, batch_size=4, collate_fn=collate)
    return data


def run(config: DictConfig, data: Any, run_dir: Path) -> tuple[Pipeline, dict[str, Any]]:
    torch.manual_seed(config.seed)
    features = build(config.features)
    shape = list(features.output_shape)
    model = build(config.model, without=("init_from",), input_shape=shape)
    pipeline = Pipeline(features, model, sample_rate=16000, task="anomaly")
    plain = OmegaConf.to_container(config, resolve=True)
    return pipeline, train_autoencoder(config, plain, pipeline, data, run_dir)


@pytest.mark.parametrize("model", MODELS)
def test_trains_and_draws(model: str, tmp_path: Path):
    data = make_data(clips(5, 0), clips(2, 1), clips(2, 2))
    config = composed(f"model={model}", *SMALL)
    pipeline, result = run(config, data, tmp_path)
    assert result["epochs"] == 2
    assert np.isfinite([result["train/loss"], result["val/loss"]]).all()
    assert not pipeline.training
    # What is handed out is what the curve's last point was measured on.
    with torch.no_grad():
        scores = [float(pipeline(waveform[None])) for waveform, _, _ in data.val_set]
    assert np.mean(scores) == pytest.approx(result["val/loss"], rel=1e-4)
    result["logger"].experiment.flush()
    board = EventAccumulator(str(tmp_path / "tb"), size_guidance={"images": 0}).Reload()
    tags = set(board.Tags()["images"])
    assert {
        f"reconstruction/{name}" for name in ("held_back_1", "held_back_2", "test_anomaly_1")
    } <= tags
    assert "scores" in tags
    assert {"scores/training", "scores/held_back"} <= set(board.Tags()["histograms"])
    kept = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["audiotorch"]
    assert kept["labels"] == []
    assert kept["config"]["model"]["_target_"] == config.model._target_
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


def test_pictures_are_in_kilohertz():
    image = np.random.default_rng(0).normal(size=(32, 50))
    edges = np.linspace(0, 8000, 33)
    settings: Any = {"edges": edges, "seconds": 1.0, "unit": "dB", "title": "clip"}
    figure = draw_prediction(image, image, image**2, **settings)
    for axes in figure.axes[:3]:
        assert axes.get_ylabel().endswith("kHz")
        names = (label.get_text() for label in axes.get_yticklabels())
        ticks = dict(zip(names, axes.get_yticks(), strict=True))
        assert ticks["2"] == 8.0
        assert ticks["4"] == 16.0


def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = make_data(clips(5, 0), clips(2, 1))
    config = composed("model=autoencoder_dense", *SMALL)
    run(config, data, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(self: Any, *_: Any) -> None:
        if self.current_epoch == 1:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(
            "audiotorch.training.autoencoding.AutoencoderTask.on_train_epoch_start",
            stop,
            raising=False,
        )
        with pytest.raises(Stop):
            run(config, data, tmp_path / "part")
    config.ckpt_path = str(tmp_path / "part")
    run(config, data, tmp_path / "part")
    whole, part = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "part")
    )
    assert whole["epoch"] == part["epoch"] == 1
    assert whole["audiotorch"]["scores"] == part["audiotorch"]["scores"]
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, part["state_dict"][name]), name


def test_diverged_training_is_stopped(tmp_path: Path):
    config = composed("model=autoencoder_dense", *SMALL, "task.optimizer.lr=1e30")
    with pytest.raises(ParameterError, match=r"train/loss=(nan|inf) in epoch \d+: .*optimizer\.lr"):
        run(config, make_data(clips(4, 0)), tmp_path)


@pytest.mark.parametrize("model", MODELS)
def test_model_implies_task_and_features_and_the_command_line_wins(model: str):
    config = composed(f"model={model}")
    assert config.features.normalize == "dataset"
    assert config.task.frames_per_step == 2560
    other = composed(f"model={model}", "features=mel_image", "task.ema_decay=null")
    assert other.features.normalize == "clip"
    assert other.task.ema_decay is None


def test_blocks_are_runs_of_frames_of_one_clip():
    images = [torch.arange(n).float().expand(1, 3, n) + 100 * k for k, n in enumerate((9, 2, 5))]
    blocks = Blocks(images, n_frames=5)
    rows = blocks[torch.arange(len(blocks))]
    assert rows.shape == (7, 1, 3, 5)
    expected = [[k, k + 1, k + 2, k + 3, k + 4] for k in range(5)]
    expected += [[100, 101, 101, 101, 101], [200, 201, 202, 203, 204]]
    assert rows[:, 0, 1].tolist() == expected


def test_order_depends_on_seed_and_epoch_alone():
    sampler = BlockSampler(1000, 100, seed=3)
    first = [batch.tolist() for batch in sampler]
    assert len(first) == len(sampler)
    assert sorted(index for batch in first for index in batch) == list(range(1000))
    assert first == [batch.tolist() for batch in BlockSampler(1000, 100, seed=3)]
    sampler.set_epoch(1)
    assert first != [batch.tolist() for batch in sampler]


def test_images_beyond_the_memory_are_left_out_and_told(caplog: pytest.LogCaptureFixture):
    config = composed("model=autoencoder_dense", *SMALL)
    features = build(config.features)
    data = make_data(clips(5, 0))
    features.fit((b.waveform, b.lengths) for b in data.train_dataloader())
    pipeline = Pipeline(features, torch.nn.Identity(), sample_rate=16000, task="anomaly")
    make = functools.partial(ClipImages, pipeline, data.train_set, batch_size=2, seed=0)
    assert len(make(cache_gb=1.0)) == 5
    assert len(make(cache_gb=0.0)) == 2
    assert "2 of 5 clips are used" in caplog.text


def clicking(waveform: Tensor) -> Tensor:
    """Eight short bursts a second, together as loud as the clip."""
    time = torch.arange(160) / 16000
    burst = torch.exp(-600 * time) * torch.sin(2 * torch.pi * 3000 * time)
    clicks = torch.zeros_like(waveform)
    for start in range(500, len(waveform) - 200, 2000):
        clicks[start : start + 160] += burst
    level = (waveform.square().mean() / clicks.square().mean()).sqrt()
    return waveform + level * clicks


@pytest.mark.parametrize("model", ["autoencoder_dense", "autoencoder_idnn"])
def test_clicks_of_a_real_machine_score_higher(model: str, data_root: Path, tmp_path: Path):
    """As loud as the clip; at -6 dB so short a training reaches an AUC of 0.89 only."""
    files = sorted((data_root / "machine_sounds" / "dcase2020_id_00" / "normal").glob("*.flac"))
    normal = [load(file, sample_rate=16000)[0][0] for file in files[:20]]
    config = composed(f"model={model}", "trainer.accelerator=cpu", "trainer.max_epochs=6")
    pipeline, _ = run(config, make_data(normal[:14]), tmp_path)
    with torch.no_grad():
        healthy = [float(pipeline(waveform[None])) for waveform in normal[14:]]
        faulty = [float(pipeline(clicking(waveform)[None])) for waveform in normal[14:]]
    assert roc_auc_score([0] * len(healthy) + [1] * len(faulty), healthy + faulty) >= 0.95
