"""The time line of a file; `predict` is tested with the Pipeline."""

import io
import warnings

import numpy as np
import pytest
import soundfile
import torch
from contract import scripted
from torch import Tensor, nn

from audiotorch import answers
from audiotorch.answers import timeline
from audiotorch.audio import Resample, load, windows
from audiotorch.errors import DecodeError, ParameterError, TruncationWarning
from audiotorch.features import SpectrogramImage, SummaryVector
from audiotorch.models import CNN, MLP
from audiotorch.pipeline import Pipeline

RATE = 8000
LABELS = ["dog", "rain", "clock"]


class Score(nn.Module):
    """A detector for tests: one number a clip."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return x.sum(dim=(1, 2, 3)) / lengths + 3.0


def build(task: str = "classification", front: str = "image", **options) -> Pipeline:
    torch.manual_seed(0)
    options = {"sample_rate": RATE, "labels": LABELS, **options}
    sizes = {"sample_rate": RATE, "n_fft": 256, "hop_length": 80}
    if front == "summary":
        features = SummaryVector(RATE)
        return Pipeline(features, MLP(3, features.output_shape), task=task, **options).eval()
    features = SpectrogramImage(**sizes, n_mels=24, deltas=front == "deltas")
    model = Score() if task == "anomaly" else CNN(3, features.output_shape, channels=(8, 16))
    return Pipeline(features, model, task=task, **options).eval()


def wav(seconds: float, rate: int = RATE, n_channels: int = 2) -> bytes:
    generator = np.random.default_rng(0)
    samples = generator.standard_normal((round(seconds * rate), n_channels))
    # Louder and louder, that no window is like another.
    samples *= np.linspace(0.01, 0.3, len(samples))[:, None]
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def as_table(found, task: str) -> np.ndarray:
    if task == "anomaly":
        return np.array([window.score for window in found])
    return np.array([list(window.probabilities.values()) for window in found])


SIZES = [(1.0, 0.5), (0.7, 0.7), (0.25, 0.8), (60.0, 1.0)]


@pytest.mark.parametrize("task", ["classification", "multilabel", "anomaly"])
@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize(("window", "hop"), SIZES)
def test_time_line_is_that_of_the_whole_waveform(task, exported, window, hop):
    pipeline = build(task)
    module = scripted(pipeline) if exported else pipeline
    file = wav(5.13)
    waveform, _ = load(file, RATE)
    with torch.no_grad():
        expected, starts, _ = pipeline.timeline(waveform, None, window, hop)
    for batch_size in (1, 3):
        found = list(timeline(module, file, window, hop, batch_size=batch_size))
        scale = max(1.0, float(expected.abs().max()))
        np.testing.assert_allclose(as_table(found, task), expected[0], rtol=0, atol=1e-6 * scale)
        assert [one.start_seconds for one in found] == starts.tolist()
        for one in found:
            assert one.end_seconds == pytest.approx(min(one.start_seconds + window, 5.13))
            if task == "anomaly":
                assert (one.label, one.confidence, one.probabilities) == (None, None, {})
            else:
                assert one.score is None
                assert list(one.probabilities) == LABELS
                assert one.confidence == max(one.probabilities.values())
                assert one.probabilities[one.label] == one.confidence


@pytest.mark.parametrize("front", ["image", "deltas", "summary"])
@pytest.mark.parametrize("min_duration", [0.0, 0.5])
@pytest.mark.parametrize("rest", [1, 100, 700, 4000])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_short_last_window_is_answered_as_in_the_pipeline(front, min_duration, rest, batch_size):
    pipeline = build(front=front, min_duration=min_duration)
    file = wav((3 * RATE + rest) / RATE)
    with torch.no_grad():
        expected, _, _ = pipeline.timeline(load(file, RATE)[0], None, 1.0, 1.0)
    found = list(timeline(pipeline, file, 1.0, batch_size=batch_size))
    assert len(found) == 4
    np.testing.assert_allclose(as_table(found, ""), expected[0], rtol=0, atol=1e-6)


def test_time_line_of_a_real_recording(data_root):
    pipeline = build()
    for path in sorted((data_root / "music_examples").rglob("*.*g*"))[:2]:
        waveform, _ = load(path, RATE, duration=20.0)
        file = io.BytesIO()
        soundfile.write(file, waveform.T.numpy(), RATE, format="WAV", subtype="FLOAT")
        with torch.no_grad():
            expected, _, _ = pipeline.timeline(waveform, None, 5.0, 2.5)
        found = list(timeline(pipeline, file, 5.0, 2.5))
        np.testing.assert_allclose(as_table(found, ""), expected[0], rtol=0, atol=1e-6)


def test_files_at_other_rates_are_resampled():
    pipeline = build()
    file = wav(3.3, 22050)
    with torch.no_grad():
        expected, _, _ = pipeline.timeline(load(file, RATE)[0], None, 1.0, 0.4)
    np.testing.assert_allclose(
        as_table(timeline(pipeline, file, 1.0, 0.4), ""), expected[0], rtol=0, atol=1e-5
    )


def test_windows_go_in_batches_of_bounded_size(monkeypatch):
    pipeline = build()
    shapes = []
    pipeline.register_forward_pre_hook(lambda _, arguments: shapes.append(arguments[0].shape))
    list(timeline(pipeline, wav(5.0), 1.0, batch_size=2))
    assert shapes == [(2, RATE), (2, RATE), (1, RATE)]
    shapes.clear()
    monkeypatch.setattr(answers.windows, "_MAX_SAMPLES", 3 * RATE)
    list(timeline(pipeline, wav(5.0), 1.0))
    assert shapes == [(3, RATE), (2, RATE)]
    shapes.clear()
    # A window longer than the recording costs no more than the recording.
    list(timeline(pipeline, wav(1.0), 3600.0))
    assert shapes == [(1, RATE)]


def test_training_goes_on_between_windows():
    pipeline = build().train()
    modes = []
    pipeline.register_forward_pre_hook(
        lambda module, _: modes.append((module.training, torch.is_grad_enabled()))
    )
    for _ in timeline(pipeline, wav(3.0), 1.0, batch_size=1):
        modes.append((pipeline.training, torch.is_grad_enabled()))
    assert modes == [(False, False), (True, True)] * 3


def test_windows_go_where_the_module_is():
    class Elsewhere(nn.Module):
        task, sample_rate, min_duration = "anomaly", RATE, 0.5
        features = SpectrogramImage(RATE)
        temperature = torch.ones((), device="meta")
        calibration = thresholds = torch.zeros(0)
        threshold_names = ()

        def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
            assert waveform.device.type == lengths.device.type == "meta"
            return torch.arange(len(waveform))

    found = timeline(Elsewhere(), wav(3.0), 1.0, batch_size=2)
    assert [window.score for window in found] == [0, 1, 0]


def test_a_file_that_breaks_is_answered_up_to_there(monkeypatch):
    def breaking(source, block_seconds, sample_rate, mono):
        yield torch.ones(1, round(4.5 * sample_rate))
        raise DecodeError("x.flac: corrupt after 4.500 s")

    monkeypatch.setattr(windows, "stream", breaking)
    for batch_size in (1, 3, 4, 5):
        line = timeline(build(), "x.flac", 1.0, batch_size=batch_size)
        assert [next(line).start_seconds for _ in range(4)] == [0.0, 1.0, 2.0, 3.0]
        with pytest.raises(DecodeError, match=r"x\.flac: corrupt after"):
            next(line)


def test_a_cut_off_file_is_answered_to_its_end_with_a_warning():
    file = io.BytesIO()
    samples = 0.3 * np.random.default_rng(0).standard_normal((60 * RATE, 1))
    soundfile.write(file, samples, RATE, format="FLAC")
    cut = file.getvalue()[: len(file.getvalue()) // 2]
    with pytest.warns(TruncationWarning, match="<bytes>: truncated or damaged"):
        found = list(timeline(build(), cut, 1.0))
    assert 29.0 < found[-1].end_seconds <= 30.5
    # As an error, it comes behind the windows that are whole.
    line = timeline(build(), cut, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncationWarning)
        assert [next(line).end_seconds for _ in found[:-1]] == list(range(1, len(found)))
        with pytest.raises(DecodeError, match="<bytes>: truncated or damaged"):
            next(line)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (wav(0.0), {}, "<bytes>: holds no samples; leave it out"),
        (b"no audio", {}, "<bytes>: not a readable audio file"),
        ("missing.wav", {}, r"missing\.wav: no such file"),
        (
            wav(0.05),
            {"front": "deltas", "min_duration": 0.0},
            r"<bytes>: lasts 0\.050 s, the features need 0\.080 s; pad the clip, or build",
        ),
    ],
    # The bytes themselves hold the time.
    ids=["empty", "no audio", "missing", "short"],
)
def test_bad_recordings_are_refused(source, options, message):
    line = timeline(build(**options), source, 1.0)
    with pytest.raises(DecodeError, match=message):
        next(line)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"window_seconds": 0.0}, r"window_seconds=0\.0: must be"),
        ({}, {"hop_seconds": -1.0}, r"hop_seconds=-1\.0: must be"),
        ({}, {"batch_size": 0}, r"batch_size=0: must be at least 1"),
        ({}, {"device": "nowhere"}, r"device='nowhere': torch cannot use it"),
        ({"labels": []}, {}, r"labels=\[\]: predict answers by name"),
        (
            {"front": "summary", "min_duration": 0.0},
            {"window_seconds": 0.3},
            r"window_seconds=0\.3: the features need 0\.512 s; take longer windows, or build",
        ),
    ],
)
def test_wrong_use_is_refused_at_the_call(options, arguments, message):
    arguments = {"window_seconds": 1.0, "hop_seconds": 0.5, **arguments}
    with pytest.raises(ParameterError, match=message):
        timeline(build(**options), "never opened.wav", **arguments)


def test_a_window_shorter_than_the_features_need_is_padded_to_min_duration():
    pipeline = build(
        front="summary", min_duration=0.6, sample_rate=2 * RATE, preprocess=Resample(2 * RATE, RATE)
    )
    file = wav(1.0, 2 * RATE)
    with torch.no_grad():
        expected, _, _ = pipeline.timeline(load(file, None)[0], None, 0.3, 0.3)
    found = as_table(timeline(pipeline, file, 0.3), "")
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-6)
