import copy
import csv
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from torch import Tensor, nn

from audiotorch import export as public_export
from audiotorch.audio import (
    Normalize,
    NormalizeLoudness,
    PreEmphasis,
    ReduceNoise,
    RemoveSilence,
)
from audiotorch.errors import ParameterError
from audiotorch.export import ExportError, export, load_pipeline, read_metadata
from audiotorch.features import SpectrogramImage
from audiotorch.models import CNN
from audiotorch.pipeline import Pipeline

# `audiotorch.export` is the function.
MODULE = sys.modules["audiotorch.export"]
RATE = 8000
LABELS = ["dog", "rain", "clock"]
METRICS = {"test/acc": 0.9, "test/recall": {"dog": 0.5, "rain": float("nan")}}
SECONDS = (0.3, 0.5, 1.0, 2.7, 5.0)
DATA = os.environ.get("AUDIOTORCH_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="AUDIOTORCH_DATA names no recordings")


def make_pipeline(**settings) -> Pipeline:
    torch.manual_seed(0)
    features = SpectrogramImage(RATE, n_fft=512, hop_length=128, n_mels=32)
    model = CNN(len(LABELS), features.output_shape, channels=(8, 16))
    # Untrained, the answers are all near 1/3; this makes them as different as a trained model's.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return Pipeline(features, model, labels=LABELS, sample_rate=RATE, **settings)


def signal(batch: int, seconds: float, rate: int = RATE, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(batch, round(seconds * rate), generator=generator)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return make_pipeline().eval()


@pytest.fixture(scope="module")
def model_file(pipeline, tmp_path_factory) -> Path:
    return export(pipeline, tmp_path_factory.mktemp("run") / "model.ts", metrics=METRICS)


@pytest.fixture(scope="module")
def program(model_file) -> nn.Module:
    return torch.export.load(model_file.with_suffix(".pt2")).module()


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_files_answer_as_the_pipeline(pipeline, model_file, program, batch, seconds):
    waveform = signal(batch, seconds, seed=batch)
    lengths = torch.linspace(1.0, 0.3, batch).mul(waveform.shape[1]).long()
    with torch.no_grad():
        eager = pipeline(waveform, lengths)
        scripted = load_pipeline(model_file)(waveform, lengths)
        exported = program(waveform, lengths)
    assert eager.shape == (batch, len(LABELS))
    torch.testing.assert_close(scripted, eager, atol=1e-5, rtol=0)
    torch.testing.assert_close(exported, eager, atol=1e-5, rtol=0)


def test_script_takes_full_clips_without_lengths(pipeline, model_file):
    waveform = signal(2, 1.0)
    with torch.no_grad():
        answer = load_pipeline(model_file)(waveform)
        eager = pipeline(waveform, torch.tensor([RATE, RATE]))
    torch.testing.assert_close(answer, eager, atol=1e-5, rtol=0)


def test_alone_in_a_batch_and_padded_agree_in_both_files(model_file, program):
    batch = signal(8, 2.0, seed=4)
    lengths = torch.linspace(0.5, 2.0, 8).mul(RATE).long()
    padded = nn.functional.pad(batch, (0, 3 * RATE))
    for file in (load_pipeline(model_file), program):
        with torch.no_grad():
            together, later = file(batch, lengths), file(padded, lengths)
            for i in range(8):
                alone = file(batch[i : i + 1, : lengths[i]], lengths[i : i + 1])
                torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(later, together, atol=1e-5, rtol=0)


def test_cleaning_is_in_both_files(tmp_path):
    steps = [ReduceNoise(1.0), RemoveSilence(RATE, pad_ms=10), PreEmphasis(), Normalize()]
    steps.append(NormalizeLoudness(RATE))
    pipeline = make_pipeline(preprocess=steps).eval()
    path = export(pipeline, tmp_path / "model.ts")
    names = [step["type"] for step in read_metadata(path)["preprocess"]]
    assert names == [type(step).__name__ for step in steps]
    program = torch.export.load(path.with_suffix(".pt2")).module()
    for seconds in (0.05, 1.0, 4.0):
        waveform = signal(3, seconds)
        waveform[:, waveform.shape[1] // 3 : waveform.shape[1] // 2] *= 1e-3
        lengths = torch.tensor([1.0, 0.8, 0.6]).mul(waveform.shape[1]).long()
        with torch.no_grad():
            eager = pipeline(waveform, lengths)
            for file in (load_pipeline(path), program):
                torch.testing.assert_close(file(waveform, lengths), eager, atol=1e-5, rtol=0)


def test_attributes_travel_with_the_file(model_file):
    module = load_pipeline(model_file)
    assert module.sample_rate == RATE
    assert list(module.labels) == LABELS
    assert module.task == "classification"
    assert not module.training


@pytest.mark.parametrize("suffix", [".ts", ".pt2"])
def test_metadata_says_what_the_file_is(model_file, pipeline, suffix):
    metadata = read_metadata(model_file.with_suffix(suffix))
    assert metadata["container"] == {".ts": "torchscript", ".pt2": "torch.export"}[suffix]
    assert metadata["labels"] == LABELS
    assert metadata["sample_rate"] == RATE
    assert metadata["task"] == "classification"
    assert metadata["min_duration"] == 0.5
    assert metadata["preprocess"] == []
    assert metadata["features"]["type"] == "SpectrogramImage"
    assert "32" in json.dumps(metadata["features"])
    assert metadata["n_parameters"] == sum(p.numel() for p in pipeline.parameters())
    assert metadata["metrics"] == {"test/acc": 0.9, "test/recall": {"dog": 0.5, "rain": None}}
    assert metadata["versions"]["torch"] == torch.__version__
    assert set(metadata["versions"]) == {"audiotorch", "torch", "python"}


def test_torch_alone_reads_the_same_metadata(model_file):
    extra = {"metadata.json": ""}
    torch.export.load(model_file.with_suffix(".pt2"), extra_files=extra)
    with zipfile.ZipFile(model_file) as archive:
        names = [name for name in archive.namelist() if name.endswith("/extra/metadata.json")]
        assert json.loads(archive.read(names[0])) == json.loads(extra["metadata.json"])


def test_only_the_two_files_are_left(model_file):
    assert sorted(path.name for path in model_file.parent.iterdir()) == ["model.pt2", "model.ts"]


@pytest.fixture(scope="module")
def at_44100(tmp_path_factory) -> tuple[Pipeline, Path]:
    """A calibrated Pipeline, still in training, and its file for audio at 44100 Hz."""
    pipeline = make_pipeline().train()
    pipeline.temperature.fill_(4.0)
    before = copy.deepcopy(pipeline.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("other rate")
    path = export(pipeline, folder / "model.ts", input_sample_rate=44100)
    assert torch.equal(torch.rand(1), expected), "the random state moved"
    torch.testing.assert_close(pipeline.state_dict(), before, rtol=0, atol=0, equal_nan=True)
    return pipeline, path


def test_exporting_touches_nothing(at_44100):
    pipeline, _ = at_44100
    assert pipeline.training
    assert pipeline.model.training
    assert pipeline.sample_rate == RATE
    assert all(parameter.requires_grad for parameter in pipeline.parameters())


def test_input_sample_rate_puts_a_resampler_in_front(at_44100, pipeline):
    trained, path = at_44100
    module = load_pipeline(path)
    assert module.sample_rate == 44100
    metadata = read_metadata(path)
    assert metadata["sample_rate"] == 44100
    assert [step["type"] for step in metadata["preprocess"]] == ["Resample"]
    calibrated = copy.deepcopy(trained).eval()
    waveform = signal(3, 1.5, rate=44100)
    lengths = torch.tensor([66150, 44100, 26461])
    with torch.no_grad():
        answer = module(waveform, lengths)
        for i, n_samples in enumerate(lengths.tolist()):
            clip = soxr.resample(waveform[i, :n_samples].numpy(), 44100, RATE, "HQ")
            eager = calibrated(torch.from_numpy(clip)[None])
            # The resamplers agree to 1e-4 at a clip's ends, and the model stretches that.
            torch.testing.assert_close(answer[i : i + 1], eager, atol=1e-3, rtol=0)
        # The temperature went along: without it the answers are elsewhere.
        assert (eager - pipeline(torch.from_numpy(clip)[None])).abs().amax() > 1e-2


class Shifting(nn.Module):
    """Answers otherwise once scripted."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        logits = x.mean(dim=(1, 2, 3))[:, None] * torch.arange(3.0)
        if torch.jit.is_scripting():
            logits = logits + torch.arange(3.0)
        return logits


class Tracing(nn.Module):
    """Answers otherwise once exported by torch.export, which keeps the traced branch."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        logits = x.mean(dim=(1, 2, 3))[:, None] * torch.arange(3.0)
        if not torch.jit.is_scripting():
            logits = logits + self.shift() * torch.arange(3.0)
        return logits

    @torch.jit.unused
    def shift(self) -> float:
        return 1.0 * torch.compiler.is_exporting()


class NotFinite(nn.Module):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return torch.full((x.shape[0], 3), float("nan"))


class NotScriptable(nn.Module):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return x.mean(dim=(1, 2, 3))[:, None] * torch.from_numpy(np.arange(3.0))


class FixedBatch(nn.Module):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if x.shape[0] == 3:
            return x.mean(dim=(1, 2, 3))[:, None] * torch.arange(3.0)
        return x.amax(dim=(1, 2, 3))[:, None] * torch.arange(3.0)


class LongOnly(nn.Module):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if x.shape[-1] > 40:
            return x.mean(dim=(1, 2, 3))[:, None] * torch.arange(3.0)
        return x.amax(dim=(1, 2, 3))[:, None] * torch.arange(3.0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Shifting(), r"the \.ts file on 1 clips of 0\.3 s differs from the Pipeline by"),
        (Tracing(), r"the \.pt2 file on 1 clips of 0\.3 s differs from the Pipeline by"),
        (NotFinite(), r"answers are not finite"),
        (NotScriptable(), r"does not script"),
        (LongOnly(), r"the \.pt2 file on 1 clips of 0\.3 s fails \(Guard failed"),
        (FixedBatch(), r"torch\.export fixed the input to sizes"),
    ],
)
def test_file_that_would_differ_is_refused_and_nothing_left(tmp_path, model, message):
    features = SpectrogramImage(RATE, n_fft=512, hop_length=128, n_mels=32)
    pipeline = Pipeline(features, model, labels=LABELS, sample_rate=RATE)
    (tmp_path / "model.ts").write_text("an earlier file")
    with pytest.raises(ExportError, match=message):
        export(pipeline, tmp_path / "model.ts")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ts"]
    assert (tmp_path / "model.ts").read_text() == "an earlier file"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
@pytest.mark.parametrize("save", ["_save_script", "_save_program"])
def test_full_disk_is_an_error_not_the_end_of_the_process(pipeline, save):
    with pytest.raises(OSError, match="No space left"):
        getattr(MODULE, save)(pipeline, Path("/dev/full"), "{}")


@pytest.mark.parametrize("failing", [1, 2])
def test_failing_disk_leaves_no_half_pair(pipeline, tmp_path, monkeypatch, failing):
    calls = []

    def replace(source, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        Path(target).write_bytes(b"")

    monkeypatch.setattr(MODULE, "_save_program", lambda *_: None)
    monkeypatch.setattr(MODULE, "_check_file", lambda *_: None)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        export(pipeline, tmp_path / "model.ts")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.pt", r"path='.*model\.pt': must end in \.ts"),
        ("missing/model.ts", r"its directory is missing"),
        ("folder.ts", r"is a directory"),
    ],
)
def test_paths_are_checked_first(pipeline, tmp_path, path, message):
    (tmp_path / "folder.ts").mkdir()
    with pytest.raises(ParameterError, match=message):
        export(pipeline, tmp_path / path)


def test_metrics_must_be_json(pipeline, tmp_path):
    with pytest.raises(ParameterError, match=r"metrics=.*must hold JSON values only"):
        export(pipeline, tmp_path / "model.ts", metrics={"acc": torch.tensor(1.0)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", [0, -8000, 44100.5])
def test_input_sample_rate_must_be_a_rate(pipeline, tmp_path, rate):
    with pytest.raises(ParameterError, match=rf"{rate}.*must be"):
        export(pipeline, tmp_path / "model.ts", input_sample_rate=rate)
    assert list(tmp_path.iterdir()) == []


def test_public_name_is_the_function():
    assert callable(public_export)
    assert public_export is export


def real_clips(count: int) -> Iterator[np.ndarray]:
    """Recordings of speech and of surroundings at the test's rate, about a half each."""
    chosen = []
    for corpus in ("fsdd", "esc10"):
        with open(Path(DATA) / corpus / "labels.csv", newline="") as table:
            rows = list(csv.DictReader(table))
        chosen += [Path(DATA) / corpus / row["file"] for row in rows[:: 2 * len(rows) // count]]
    assert len(chosen) >= count
    for file in chosen[:count]:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
        yield soxr.resample(samples.mean(axis=1), rate, RATE, "HQ")


@needs_data
def test_real_clips_at_five_lengths_alone_and_in_batches(pipeline, model_file, program):
    clips = list(real_clips(50))
    scripted = load_pipeline(model_file)
    for seconds in SECONDS:
        cut = [torch.from_numpy(clip[: round(seconds * RATE)]) for clip in clips]
        lengths = torch.tensor([len(clip) for clip in cut])
        waveform = nn.utils.rnn.pad_sequence(cut, batch_first=True)
        for batch in (1, 8):
            for start in range(0, len(cut), batch):
                part, n = waveform[start : start + batch], lengths[start : start + batch]
                with torch.no_grad():
                    eager = pipeline(part, n)
                    torch.testing.assert_close(scripted(part, n), eager, atol=1e-5, rtol=0)
                    torch.testing.assert_close(program(part, n), eager, atol=1e-5, rtol=0)
