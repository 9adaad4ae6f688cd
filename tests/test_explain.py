"""Why a detector finds a recording anomalous: planted deviations are found where they are."""

import io

import numpy as np
import pytest
import torch
from contract import scripted
from detectors import HOP, RATE, calibrated, image_detector, noise, vector_detector, wav
from torch import nn

from audiotorch import predict
from audiotorch.audio import load
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.explain import explain_detection
from audiotorch.features import SpectrogramImage
from audiotorch.pipeline import Pipeline
from audiotorch.plot import detection, pixels

MACHINE_RATE = 16000


def with_tone(waveform: torch.Tensor, rate: int, start: float, end: float, hz: float, level: float):
    """A copy with a sine in it, faded in and out that it does not click."""
    time = torch.arange(len(waveform)) / rate
    gain = (torch.minimum(time - start, end - time) / 0.02).clamp(0.0, 1.0)
    return waveform + level * gain * torch.sin(2 * torch.pi * hz * time)


@pytest.fixture(scope="module")
def machine(data_root) -> torch.Tensor:
    """Seven seconds of a real machine."""
    path = min((data_root / "machine_sounds" / "dcase2020_id_00" / "normal").glob("*.flac"))
    waveform, _ = load(path, MACHINE_RATE, duration=7.0)
    return waveform[0]


def machine_detector(machine: torch.Tensor, **options) -> Pipeline:
    """What it rebuilds is the machine's own mean spectrum in dB."""
    blank = image_detector(torch.zeros(32), MACHINE_RATE)
    spectrum = blank.features(machine[None])[0, 0].mean(dim=1)
    return image_detector(spectrum, MACHINE_RATE, **options)


@pytest.mark.parametrize("options", [{}, {"window": 2.0, "hop": 0.5, "aggregate": "max"}])
@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize(("start", "hz"), [(3.1, 2300.0), (0.4, 700.0), (6.3, 5200.0)])
def test_a_tone_in_a_real_machine_is_found(machine, options, exported, start, hz):
    pipeline = machine_detector(machine, **options)
    module = scripted(pipeline) if exported else pipeline
    level = 3.0 * float(machine.square().mean().sqrt())
    waveform = with_tone(machine, MACHINE_RATE, start, start + 0.4, hz, level)
    found = explain_detection(module, waveform)
    assert start <= found.second <= start + 0.4
    low, high = found.band
    assert low <= hz <= high
    assert high / low < 1.6
    assert found.reason.startswith(f"most deviates at {found.second:.1f} s, ")
    # The map's own axes lead there as well.
    band, frame = divmod(int(found.map.errors.argmax()), found.map.errors.shape[1])
    assert start <= frame * found.map.frame_seconds <= start + 0.4
    # In dB, a tone near the edge of a band deviates most in the quieter one of the two.
    assert found.map.band_edges[band - 1] <= hz <= found.map.band_edges[band + 2]
    worst = float(found.start_seconds[found.window_scores.argmax()])
    assert worst <= start + 0.4
    assert worst + found.window_seconds >= start
    with torch.no_grad():
        assert found.score == pytest.approx(float(pipeline(waveform[None])), rel=1e-5)


def test_the_map_of_a_whole_clip_is_the_models_own():
    pipeline = image_detector()
    waveform = torch.from_numpy(noise(2.3)[:, 0]).float()
    found = explain_detection(pipeline, waveform)
    with torch.no_grad():
        x, counts = pipeline.front(waveform[None])
    torch.testing.assert_close(found.map.errors, pipeline.model.error_map(x, counts)[0])
    torch.testing.assert_close(found.map.spectrogram, x[0, 0])
    assert found.map.frame_seconds == HOP / RATE
    assert found.seconds == pytest.approx(2.3)


def test_the_map_of_windows_is_their_mean():
    pipeline = image_detector(window=1.0, hop=0.4)  # 25 frames
    waveform = torch.from_numpy(noise(2.41)[:, 0]).float()
    found = explain_detection(pipeline, waveform, batch_size=2)
    shape = found.map.errors.shape
    total, count = np.zeros(shape), np.zeros(shape[1])
    # The last window is moved back, to 1.41 s: 88 frames.
    for start, place in ((0.0, 0), (0.4, 25), (0.8, 50), (1.2, 75), (1.41, 88)):
        first = round(start * RATE)
        with torch.no_grad():
            x, n = pipeline.front(waveform[None, first : first + RATE])
            errors = pipeline.model.error_map(x, n)[0].numpy()
        total[:, place : place + errors.shape[1]] += errors
        count[place : place + errors.shape[1]] += 1
    np.testing.assert_allclose(found.map.errors.numpy(), total / count, rtol=1e-5)
    assert count.min() >= 1


def test_bands_are_those_of_the_mel_bank():
    found = explain_detection(image_detector(), wav(noise(1.0)))
    edges = found.map.band_edges
    assert len(edges) == 33
    assert bool((edges.diff() > 0).all())
    assert 0 <= edges[0] < 100
    assert RATE / 2 - 100 < edges[-1] <= RATE / 2


def test_of_an_hour_the_worst_minute_is_drawn(monkeypatch):
    # Ten minutes stand for it.
    samples = 0.01 * np.random.default_rng(0).standard_normal(600 * RATE)
    waveform = with_tone(torch.from_numpy(samples), RATE, 431.0, 431.4, 1500.0, 0.5).float()
    pipeline = image_detector(window=2.0, hop=1.0, aggregate="max")
    found = explain_detection(pipeline, wav(waveform.numpy()))
    assert len(found.start_seconds) == 599
    assert found.seconds == 600.0
    assert 431.0 <= found.second <= 431.4
    assert found.band[0] <= 1500 <= found.band[1]
    assert found.map.errors.shape[1] == 60 * RATE // HOP + 1
    assert found.map.start_seconds <= 431 <= found.map.start_seconds + 60
    assert found.score == predict(pipeline, wav(waveform.numpy()))[0].score


def test_clips_stretched_to_a_number_of_frames_keep_their_seconds():
    features = SpectrogramImage(RATE, 512, HOP, n_mels=32, normalize="none", n_frames=100)
    model = image_detector().model
    pipeline = Pipeline(features, model, sample_rate=RATE, task="anomaly").eval()
    waveform = with_tone(0.01 * torch.randn(4 * RATE), RATE, 2.5, 2.9, 1500.0, 0.5)
    found = explain_detection(pipeline, waveform)
    assert found.map.errors.shape == (32, 100)
    assert 2.4 <= found.second <= 3.0


# --- models on vectors ----------------------------------------------------------------------------


@pytest.mark.parametrize("exported", [False, True])
def test_features_that_deviate_most_are_named(exported):
    pipeline = calibrated(vector_detector(), "warning", "alarm")
    module = scripted(pipeline) if exported else pipeline
    waveform = 0.1 * torch.randn(2 * RATE) + 0.05 * torch.sin(torch.arange(2 * RATE) * 0.3)
    found = explain_detection(module, waveform)
    names = list(pipeline.features.names)
    with torch.no_grad():
        x = pipeline.features(waveform[None])[0]
    z = ((x - pipeline.model.mean) / pipeline.model.std).numpy()
    order = np.argsort(-np.abs(z), kind="stable")[:10]
    assert list(found.deviations) == [names[i] for i in order]
    np.testing.assert_allclose(list(found.deviations.values()), z[order], rtol=1e-4)
    told = ", ".join(f"{names[i]} {z[i]:+.1f}" for i in order[:3])
    assert found.reason == f"most deviates in {told} standard deviations"
    assert (found.second, found.band, found.map) == (None, None, None)
    assert list(found.thresholds) == ["warning", "alarm"]
    answer = pipeline.predict(wav(waveform.numpy()))[0]
    for key in ("score", "threshold", "p_value", "is_anomaly"):
        assert getattr(found, key) == pytest.approx(getattr(answer, key), rel=1e-5)


def test_windowed_detectors_on_vectors_tell_the_second():
    pipeline = vector_detector(window=1.0, hop=0.5)
    waveform = 0.1 * torch.randn(6 * RATE)
    waveform = with_tone(waveform, RATE, 3.5, 4.5, 1000.0, 1.0)
    for source in (waveform, wav(waveform.numpy()), io.BytesIO(wav(waveform.numpy()))):
        found = explain_detection(pipeline, source)
        assert 3.0 <= found.second <= 4.0
        assert found.reason.startswith(
            f"most deviates at {found.second:.1f}-{found.second + 1:.1f}"
        )
        first = round(found.second * RATE)
        x = pipeline.features(waveform[None, first : first + RATE])
        z = pipeline.model.deviations(x, x)[0]
        name = next(iter(found.deviations))
        assert name == pipeline.features.names[int(z.abs().argmax())]
        assert found.deviations[name] == pytest.approx(float(z[z.abs().argmax()]), rel=1e-4)


def test_images_that_are_pooled_have_names_too():
    class Pooled(nn.Module):
        @torch.jit.export
        def deviations(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            return torch.arange(4.0 * 32).repeat(len(x), 1)

        def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(1, 2, 3))

    features = SpectrogramImage(RATE, 512, HOP, n_mels=32)
    pipeline = Pipeline(features, Pooled(), sample_rate=RATE, task="anomaly")
    found = explain_detection(scripted(pipeline), wav(noise(1.0)))
    assert next(iter(found.deviations.items())) == ("mel_max_31", 127.0)


# --- what is refused, and pictures ----------------------------------------------------------------


def test_bad_recordings_and_waveforms_are_refused():
    for options in ({}, {"window": 1.0}):
        pipeline = image_detector(**options)
        with pytest.raises(DecodeError, match="holds no samples"):
            explain_detection(pipeline, wav(np.zeros((0, 1))))
        with pytest.raises(DecodeError, match="not a readable audio file"):
            explain_detection(pipeline, b"RIFF no audio")
        with pytest.raises(DecodeError, match="<waveform>: holds no samples"):
            explain_detection(pipeline, torch.zeros(0))
        with pytest.raises(ParameterError, match=r"source: a waveform must be \(time,\), got 2"):
            explain_detection(pipeline, torch.zeros(1, RATE))
        with pytest.raises(ParameterError, match="batch_size=0"):
            explain_detection(pipeline, wav(noise(1.0)), batch_size=0)


def test_models_that_say_nothing_are_refused():
    features = SpectrogramImage(RATE)
    for task, message in (("anomaly", "says neither where nor"), ("classification", "no detector")):
        pipeline = Pipeline(features, nn.Identity(), sample_rate=RATE, task=task)
        with pytest.raises(ParameterError, match=message):
            explain_detection(pipeline, wav(noise(1.0)))


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0, 1.01, 3.3])
@pytest.mark.parametrize("options", [{}, {"window": 1.0, "hop": 0.3}])
@pytest.mark.parametrize("build", [image_detector, vector_detector])
def test_clips_of_any_length_are_explained_and_drawn(seconds, options, build):
    pipeline = calibrated(build(**options), "warning", "alarm")
    found = explain_detection(pipeline, wav(noise(seconds, 44100, 2), 44100))
    assert found.seconds == pytest.approx(seconds, abs=2 / RATE)
    assert found.start_seconds[-1] + found.window_seconds == pytest.approx(found.seconds)
    figure = detection(found, "a $ name.wav")
    assert pixels(figure).std() > 10
    assert "a \\$ name.wav: " in figure.get_suptitle()
    lines = {line.get_label() for line in figure.axes[-1].lines}
    if build is vector_detector:
        bars = [bar.get_width() for bar in figure.axes[0].patches]
        assert bars == pytest.approx(list(found.deviations.values()))
        lines = {line.get_label() for line in figure.axes[1].lines}
    else:
        lines = {line.get_label() for line in figure.axes[2].lines}
    assert {"warning (of whole clips)", "alarm (of whole clips)"} <= lines


def test_the_pictures_axes_are_seconds_and_hertz():
    waveform = with_tone(0.01 * torch.randn(4 * RATE), RATE, 2.5, 2.9, 1000.0, 0.5)
    figure = detection(explain_detection(image_detector(), waveform))
    for axes in figure.axes[:2]:
        image = axes.images[-1]
        left, right, bottom, top = image.get_extent()
        assert right - left == pytest.approx(4.0, abs=2 * HOP / RATE)
        ticks = dict(
            zip((t.get_text() for t in axes.get_yticklabels()), axes.get_yticks(), strict=True)
        )
        shown = np.asarray(image.get_array())
        row, column = np.unravel_index(shown.argmax(), shown.shape)
        assert abs(bottom + (row + 0.5) * (top - bottom) / len(shown) - ticks["1"]) < 1.0
        assert 2.5 <= left + (column + 0.5) * (right - left) / shown.shape[1] <= 2.9
