"""Trained networks as front ends."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract import exported, run_on_fake_cuda, scripted
from hydra import compose, initialize_config_dir
from sklearn.linear_model import LogisticRegression
from torch import nn

import audiotorch as at
from audiotorch.audio import Normalize
from audiotorch.data.datamodule import AudioDataset
from audiotorch.data.demo import write_corpus
from audiotorch.errors import ParameterError
from audiotorch.features import MFCCStatistics, SpectrogramImage
from audiotorch.models import CNN, MLP, ClassicModel, Ensemble, Linear, TimmCNN
from audiotorch.models.audio_features import AudioFeatures
from audiotorch.models.embedding import Embedding
from audiotorch.training.build import config_dir
from audiotorch.training.checkpoint import load_checkpoint_pipeline
from audiotorch.training.embedding import RunEmbedding
from audiotorch.training.train import train
from audiotorch.training.vectors import compute_vectors

RATE = 8000
LENGTHS = (9000, 3000, 5500, 2)
MODELS: dict[str, Any] = {
    "cnn": CNN,
    "ensemble": partial(Ensemble, member=CNN, n_members=2),
    "timm": partial(TimmCNN, name="resnet10t", n_frames=32),
    "mlp": partial(MLP, hidden=(12, 9)),
    "linear": Linear,
}
SIZES = {"cnn": 256, "ensemble": 512, "timm": 512, "mlp": 9, "linear": 240}


def trained(name: str) -> at.Pipeline:
    """A network whose statistics of batches have moved, with a step of preprocessing."""
    if name == "timm":
        pytest.importorskip("timm", reason="the extra timm is not installed")
    images = name not in ("mlp", "linear")
    front_end = SpectrogramImage(RATE, 256, 80, n_mels=40) if images else MFCCStatistics(RATE)
    pipeline = at.Pipeline(
        front_end,
        MODELS[name](n_classes=3, input_shape=front_end.output_shape),
        labels=["a", "b", "c"],
        sample_rate=RATE,
        preprocess=Normalize("rms"),
        min_duration=0.6,
    )
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        pipeline.train()(0.1 * torch.randn(4, 9000, generator=generator))
    return pipeline


def clips() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    lengths = torch.tensor(LENGTHS)
    noise = 0.1 * torch.randn(len(LENGTHS), max(LENGTHS), generator=generator)
    return noise.masked_fill(torch.arange(max(LENGTHS)) >= lengths[:, None], 0.0), lengths


def last_linear(pipeline: at.Pipeline) -> list[nn.Linear]:
    """The layers that answer, found by what they give: three classes."""
    return [m for m in pipeline.model.modules() if isinstance(m, nn.Linear) and m.out_features == 3]


@pytest.mark.parametrize("name", MODELS)
def test_embedding_is_what_the_last_layer_gets(name):
    pipeline = trained(name).eval()
    heads, seen = last_linear(pipeline), []
    for head in heads:
        head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    waveform, lengths = clips()
    with torch.no_grad():
        pipeline(waveform, lengths)
        expected = torch.cat(seen, dim=1)
        embedding = Embedding(pipeline)
        found = embedding(waveform, lengths)
    assert found.shape == (len(LENGTHS), SIZES[name]) == expected.shape
    assert embedding.output_shape == [SIZES[name]]
    assert embedding.names == [f"embedding_{k}" for k in range(SIZES[name])]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", MODELS)
def test_embedding_is_a_front_end(name):
    embedding = Embedding(trained(name))
    waveform, lengths = clips()
    together = embedding(waveform, lengths)
    padded = embedding(nn.functional.pad(waveform, (0, 3000), value=5.0), lengths)
    torch.testing.assert_close(padded, together, atol=1e-5, rtol=1e-5)
    for i, n in enumerate(LENGTHS):
        alone = embedding(waveform[i : i + 1, :n])
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=1e-5)
    file = scripted(embedding)
    torch.testing.assert_close(file(waveform, lengths), together, atol=1e-5, rtol=1e-5)
    assert file.frame_counts(lengths).tolist() == [1] * len(LENGTHS)
    assert run_on_fake_cuda(embedding, waveform, lengths).shape == together.shape


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_embedding_exports(name):
    embedding = Embedding(trained(name))
    waveform, lengths = clips()
    program = exported(embedding, waveform[:2], lengths[:2])
    expected = embedding(waveform, lengths)
    torch.testing.assert_close(program(waveform, lengths), expected, atol=1e-5, rtol=1e-5)


def test_nothing_is_learned_any_more():
    pipeline = trained("cnn")
    embedding = Embedding(pipeline)
    assert all(parameter.requires_grad for parameter in pipeline.parameters())
    assert pipeline.training
    waveform, lengths = clips()
    expected = embedding(waveform, lengths)
    around = nn.Sequential(embedding, nn.Linear(256, 2)).train()
    assert around[1].training
    assert not any(module.training for module in embedding.modules())
    around(waveform).sum().backward()
    assert all(parameter.grad is None for parameter in embedding.parameters())
    torch.testing.assert_close(embedding(waveform, lengths), expected, atol=0, rtol=0)


def test_shortest_clip_is_that_of_the_pipeline():
    pipeline = trained("mlp")
    assert Embedding(pipeline).min_samples == 1
    pipeline.min_samples = 0
    assert Embedding(pipeline).min_samples == pipeline.features.min_samples == 4096


def test_a_model_without_such_a_layer_is_refused():
    fitted = LogisticRegression().fit([[0.0] * 240, [1.0] * 240], [0, 1])
    pipeline = at.Pipeline(MFCCStatistics(RATE), ClassicModel(fitted), sample_rate=RATE)
    with pytest.raises(ParameterError, match="its model ClassicModel has no layer before"):
        Embedding(pipeline)


# --- of a run -------------------------------------------------------------------------------------


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "sounds"
    write_corpus(root, n_devices=10, n_takes=1)
    return root


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained for a moment."""
    folder = tmp_path_factory.mktemp("runs") / "cnn"
    data = ("data=demo", f"data.root={corpus}", "data.n_devices=10", "data.n_takes=1")
    small = ("features=word_image", "features.n_frames=16", "features.n_mels=16")
    brief = ("model.channels=[4,8]", "trainer.accelerator=cpu", "trainer.max_epochs=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiotorch.training.results.export", lambda *_, **__: None)
        train(composed(*data, *small, *brief), folder)
    return folder


def test_a_run_gives_vectors_to_scikit_learn(run, corpus):
    embedding = RunEmbedding(run, 16000)
    pipeline = load_checkpoint_pipeline(run)
    files = sorted(corpus.rglob("*.flac"))[:4]
    x = AudioFeatures(embedding, sample_rate=16000).fit_transform([str(file) for file in files])
    waveforms = [at.load(file, 16000)[0] for file in files]
    with torch.no_grad():
        expected = [pipeline.model.embed(*pipeline.front(w))[0].numpy() for w in waveforms]
    np.testing.assert_allclose(x, expected, atol=1e-5, rtol=1e-5)
    fitted = LogisticRegression().fit(x, [0, 0, 1, 1])
    whole = at.Pipeline(embedding, ClassicModel(fitted), labels=["no", "yes"], sample_rate=16000)
    answers = np.concatenate([whole.eval()(w).numpy() for w in waveforms])
    np.testing.assert_allclose(answers, fitted.predict_proba(x), atol=1e-4)
    dataset = AudioDataset(write_corpus(corpus, n_devices=10, n_takes=1)[:4], ["drops"], 16000)
    assert compute_vectors(whole, dataset).x.shape == (4, 16)


def test_a_classic_model_is_trained_on_it_and_comes_back(run, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("audiotorch.training.results.export", lambda *_, **__: None)
    config = composed(
        *("data=demo", f"data.root={corpus}", "data.n_devices=10", "data.n_takes=1"),
        *("features=embedding", f"features.run={run}", "features.sample_rate=16000"),
        *("model=logistic", "task.importance=null"),
    )
    train(config, tmp_path / "classic")
    pipeline = load_checkpoint_pipeline(tmp_path / "classic")
    assert isinstance(pipeline.features, RunEmbedding)
    with pytest.raises(ParameterError, match=r"run=.*classic'.* ClassicModel has no layer before"):
        RunEmbedding(tmp_path / "classic")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run": None}, r"run=None: must be the directory of a training run.*features\.run="),
        ({"run": "nowhere"}, "checkpoint 'nowhere': must be a checkpoint or a run directory"),
        ({"sample_rate": 22050}, "trained at 16000 Hz; set features.sample_rate=16000"),
    ],
)
def test_wrong_settings_are_refused(run, settings, message):
    with pytest.raises(ParameterError, match=message):
        RunEmbedding(**{"run": run, **settings})
