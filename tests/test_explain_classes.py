"""Why a classifier answers as it does: planted and real evidence is found where it is."""

import csv
import io
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from contract import scripted
from detectors import HOP, RATE, noise, vector_detector, wav
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from audiotorch import ReduceNoise, RemoveSilence, load, predict
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.explain import (
    Explanation,
    band_edges,
    class_weights,
    explain,
    explain_class,
)
from audiotorch.features import SpectrogramImage, SummaryVector
from audiotorch.models import CNN, MLP, ClassicModel, Ensemble, Linear
from audiotorch.models.classic import build_classifier
from audiotorch.pipeline import Pipeline
from audiotorch.plot import explanation, pixels

SECONDS = 2.0
TONES = {"low": 700.0, "high": 2300.0}
LABELS = ["low", "high", "none"]


def burst(label: str, start: float, seed: int, length: float = 0.3) -> torch.Tensor:
    """Two seconds of quiet noise and, from `start` on, a tone of its class."""
    generator = torch.Generator().manual_seed(seed)
    waveform = 0.02 * torch.randn(round(SECONDS * RATE), generator=generator)
    if label == "none":
        return waveform
    time = torch.arange(len(waveform)) / RATE
    gain = (torch.minimum(time - start, start + length - time) / 0.02).clamp(0.0, 1.0)
    return waveform + 0.1 * gain * torch.sin(2 * torch.pi * TONES[label] * time)


def image(**options: Any) -> SpectrogramImage:
    return SpectrogramImage(RATE, 512, HOP, n_mels=32, **options)


def train(model: nn.Module, x: torch.Tensor, counts: torch.Tensor, y: torch.Tensor, n_epochs: int):
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    n_steps = n_epochs * -(-len(x) // 16)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, n_steps)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(x)).split(16):
            loss = nn.functional.cross_entropy(model.train()(x[rows], counts[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


@pytest.fixture(scope="module")
def tones() -> Pipeline:
    """A CNN that learned to tell which tone is somewhere in a clip."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    y = torch.arange(96) % 3
    clips = [burst(LABELS[k], generator.uniform(0, 1.7), i) for i, k in enumerate(y.tolist())]
    pipeline = Pipeline(
        image(), CNN(3, (1, 32), channels=(8, 16, 32, 32)), labels=LABELS, sample_rate=RATE
    )
    with torch.no_grad():
        x, counts = pipeline.front(torch.stack(clips))
    train(pipeline.model, x, counts, y, n_epochs=8)
    return pipeline.eval()


@pytest.fixture(scope="module")
def tones_file(tones) -> Any:
    return scripted(tones)


def untrained(model: nn.Module, features: nn.Module | None = None, **options: Any) -> Pipeline:
    """A Pipeline whose statistics of batches are not at their start."""
    pipeline = Pipeline(features or image(), model, labels=LABELS, sample_rate=RATE, **options)
    with torch.no_grad():
        pipeline.train()(0.1 * torch.randn(8, 2 * RATE))
    return pipeline.eval()


# --- where: planted evidence ----------------------------------------------------------------------


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize(("label", "start"), [("low", 0.2), ("low", 1.5), ("high", 0.9)])
def test_a_planted_tone_is_found_where_it_is(tones, tones_file, exported, label, start):
    waveform = burst(label, start, seed=999)
    found = explain_class(tones_file if exported else tones, waveform)
    assert found.label == label
    assert found.confidence > 0.8
    band, frame = divmod(int(found.map.weights.argmax()), found.map.weights.shape[1])
    second = found.map.start_seconds + frame * found.map.frame_seconds
    assert start - 0.05 <= second <= start + 0.35
    # A cell of the layer that is looked at is two bands high, and is blurred.
    assert found.map.band_edges[max(0, band - 3)] <= TONES[label] <= found.map.band_edges[band + 4]
    assert found.map.weights.max() == 1
    assert found.map.weights.min() >= 0
    # Around the tone lies most of the weight, though it fills but a fiftieth of the picture.
    frames = found.map.start_seconds + found.map.frame_seconds * np.arange(
        found.map.weights.shape[1]
    )
    edges = found.map.band_edges.numpy()
    near = np.abs(frames - start - 0.15) < 0.3
    rows = (edges[1:] > TONES[label] / 1.6) & (edges[:-1] < TONES[label] * 1.6)
    share = found.map.weights.numpy()[rows][:, near].sum() / found.map.weights.sum()
    assert share > 2 * rows.mean() * near.mean()
    assert found.reason.startswith(f"most speaks for {label!r} at ")
    assert found.reason.endswith("Hz")


def test_another_class_can_be_asked_for(tones):
    waveform = burst("low", 0.2, 1) + burst("high", 1.4, 2)
    seconds = {}
    for label in TONES:
        found = explain_class(tones, waveform, label=label)
        assert found.label == label
        assert found.confidence == found.probabilities[label]
        frame = int(found.map.weights.argmax()) % found.map.weights.shape[1]
        seconds[label] = frame * found.map.frame_seconds
    assert seconds["low"] < 0.6 < 1.3 < seconds["high"]


def test_answers_are_those_of_predict(tones):
    file = wav(burst("high", 0.5, 3).numpy())
    found, answer = explain_class(tones, file), predict(tones, file)[0]
    assert (found.label, found.confidence) == (answer.label, pytest.approx(answer.confidence))
    assert found.probabilities == pytest.approx(answer.probabilities)
    assert found.seconds == SECONDS
    assert explain(tones, io.BytesIO(file)).reason == found.reason
    assert isinstance(explain(vector_detector(), wav(noise(1.0))), Explanation)


# --- where: Grad-CAM by hand ----------------------------------------------------------------------


def by_hooks(model: CNN, layer: nn.Module, x: torch.Tensor, place: int, stride: int) -> np.ndarray:
    """Element-wise Grad-CAM of one full clip, with hooks, probabilities, scipy and numpy."""
    kept: list[torch.Tensor] = []

    def keep(_: nn.Module, __: Any, out: Any) -> None:
        kept.append(out[0] if isinstance(out, tuple) else out)
        kept[0].retain_grad()

    handle = layer.register_forward_hook(keep)
    p = model(x.double(), torch.tensor([x.shape[-1]])).softmax(dim=1)[0, place]
    handle.remove()
    (p / (1 - p)).log().backward()
    cells = (kept[0].grad * kept[0]).sum(dim=1)[0].detach().numpy()
    kernel = np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1])
    cells = scipy.signal.convolve2d(cells, kernel, "same") / scipy.signal.convolve2d(
        np.ones_like(cells), kernel, "same"
    )
    rows = np.array(
        [np.interp(np.arange(x.shape[3]) / stride, np.arange(cells.shape[1]), row) for row in cells]
    )
    return np.array(
        [
            np.interp(np.arange(x.shape[2]) / stride, np.arange(cells.shape[0]), row)
            for row in rows.T
        ]
    ).T


@pytest.mark.parametrize(
    ("options", "layer", "stride"),
    [
        ({}, "stages.0", 2),
        ({"channels": (8, 8, 16, 16, 16)}, "stages.1", 4),
        ({"channels": (8, 16), "stem_stride": 2}, "stem", 2),
    ],
)
def test_maps_are_those_of_naive_autograd(options, layer, stride):
    model = untrained(CNN(3, (1, 32), **options)).model.double()
    x = torch.randn(1, 1, 32, 57, dtype=torch.float64)
    found = class_weights(model, x, torch.tensor([57]), torch.tensor([1]))
    expected = by_hooks(model, model.get_submodule(layer), x, 1, stride)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-9 * np.abs(expected).max())


def test_an_ensembles_map_is_its_members_mean():
    model = untrained(Ensemble(3, (1, 32), member=partial(CNN, channels=(8, 16)))).model
    x, counts, classes = torch.randn(2, 1, 32, 40), torch.tensor([40, 33]), torch.tensor([0, 2])
    members = [class_weights(member, x, counts, classes) for member in model.members]
    found = class_weights(model, x, counts, classes)
    torch.testing.assert_close(found, torch.stack(members).mean(dim=0))
    assert float((members[0] - members[1]).abs().max()) > 1e-3 * float(found.abs().max())


class Blackbox(nn.Module):
    """A CNN that shows no layer, as backbones of timm and files of old do."""

    def __init__(self, inner: CNN) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        return self.inner(x, counts)


@pytest.mark.parametrize("wrap", [nn.Identity, Blackbox])
def test_maps_are_the_same_alone_batched_padded_and_exported(tones, wrap):
    model = tones.model if wrap is nn.Identity else Blackbox(tones.model)
    pipeline = Pipeline(tones.features, model, labels=LABELS, sample_rate=RATE).eval()
    file = scripted(pipeline)
    clips = [burst("low", 0.3, 4)[: round(1.1 * RATE)], burst("high", 0.9, 5), burst("none", 0, 6)]
    lengths = torch.tensor([len(clip) for clip in clips])
    padded = nn.utils.rnn.pad_sequence(clips, batch_first=True)
    classes = torch.tensor([0, 1, 1])
    with torch.no_grad():
        x, counts = pipeline.front(nn.functional.pad(padded, [0, 5000]), lengths)
    together = class_weights(pipeline.model, x, counts, classes)
    from_file = class_weights(file.model, x, counts, classes)
    scale = float(together.abs().max())
    torch.testing.assert_close(from_file, together, atol=1e-5 * scale, rtol=0)
    for k, clip in enumerate(clips):
        with torch.no_grad():
            x, n = pipeline.front(clip[None])
        alone = class_weights(pipeline.model, x, n, classes[k : k + 1])[0]
        inside, own = int(counts[k]), float(alone.abs().max())
        torch.testing.assert_close(together[k, :, :inside], alone, atol=1e-4 * own, rtol=0)
        assert not together[k, :, inside:].any()
    # As long as it is the model's own way, exported files can be asked without gradients after.
    assert torch.allclose(file(padded, lengths), pipeline(padded, lengths), atol=1e-5)


def test_models_that_show_no_layer_are_explained_by_gradients(tones):
    pipeline = Pipeline(tones.features, Blackbox(tones.model), labels=LABELS, sample_rate=RATE)
    for module in (pipeline.eval(), scripted(pipeline)):
        found = explain_class(module, burst("high", 0.9, seed=998))
        band, frame = divmod(int(found.map.weights.argmax()), found.map.weights.shape[1])
        assert 0.85 <= frame * found.map.frame_seconds <= 1.25
        assert found.map.band_edges[band - 2] <= TONES["high"] <= found.map.band_edges[band + 3]
        assert found.reason.endswith("(by gradients of the model's input)")


def test_gradients_add_up_to_what_the_class_gains_over_the_mean_image():
    """The law of integrated gradients, seen where the blur has only a constant to blur."""

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            total = x.square().sum(dim=(1, 2, 3))
            return torch.stack([total, torch.zeros_like(total)], dim=1)

    x = torch.full((1, 1, 6, 6), 2.0)
    x[..., 3:] = -2.0
    found = class_weights(Sum(), x, torch.tensor([6]), torch.tensor([0]))
    torch.testing.assert_close(found, torch.full((1, 6, 6), 4.0))


def test_backbones_of_timm_are_explained():
    pytest.importorskip("timm")
    from audiotorch.models import TimmCNN

    pipeline = untrained(TimmCNN(3, (1, 32), name="resnet10t", n_frames=64))
    found = explain_class(pipeline, burst("low", 0.5, 7))
    assert found.map.weights.shape == (32, 126)
    assert found.map.weights.max() == 1


# --- where: real recordings -----------------------------------------------------------------------


def test_what_is_marked_matters_on_real_digits(data_root):
    """Without the fifth that is marked most, digits of an unheard speaker are not heard."""
    folder = data_root / "fsdd"
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["digit"]) < 5][::4]
    features = SpectrogramImage(
        8000, 256, 80, n_mels=40, fmin=60.0, fmax=3900.0, top_db=45.0, normalize="band",
        n_frames=48, trim_db=30.0,
    )  # fmt: skip
    with torch.no_grad():
        x = torch.cat([features(load(folder / row["file"], 8000)[0]) for row in rows])
    y = torch.tensor([int(row["digit"]) for row in rows])
    counts = torch.full_like(y, 48)
    is_test = torch.tensor([row["speaker"] == "george" for row in rows])
    model = CNN(5, features.output_shape, channels=(8, 16, 32, 32))
    train(model, x[~is_test], counts[~is_test], y[~is_test], n_epochs=10)
    x, counts = x[is_test], counts[is_test]
    with torch.no_grad():
        p, classes = model(x, counts).softmax(dim=1).max(dim=1)
    assert len(x) >= 30

    def without(order: torch.Tensor) -> float:
        """The mean loss of probability without a fifth of the cells."""
        cells = x.flatten(1).clone()
        cells.scatter_(1, order[:, : cells.shape[1] // 5], 0.0)
        with torch.no_grad():
            left = model(cells.reshape(x.shape), counts).softmax(dim=1)
        return float((p - left.gather(1, classes[:, None])[:, 0]).mean())

    weights = class_weights(model, x, counts, classes).flatten(1)
    most, least = (without(weights.argsort(dim=1, descending=way)) for way in (True, False))
    chance = without(torch.rand(weights.shape).argsort(dim=1))
    # Of other clips' maps, which mark as large areas: what this clip's own place is worth.
    other = without(weights.roll(7, dims=0).argsort(dim=1, descending=True))
    assert most > 0.3
    assert most > 2 * max(chance, 0.05)
    assert most > 1.2 * other
    assert least < 0.1


# --- seconds and bands ----------------------------------------------------------------------------


def test_words_stretched_to_an_image_keep_their_seconds():
    features = image(n_frames=50, trim_db=30.0)
    pipeline = untrained(CNN(3, (1, 32), channels=(8, 16)), features)
    waveform = 1e-4 * torch.randn(3 * RATE)
    waveform[RATE : 2 * RATE] += 0.3 * torch.randn(RATE)
    for module in (pipeline, scripted(pipeline)):
        found = explain_class(module, waveform).map
        assert found.weights.shape == (32, 50)
        assert found.start_seconds == pytest.approx(1.0, abs=512 / RATE)
        end = found.start_seconds + 49 * found.frame_seconds
        assert end == pytest.approx(2.0, abs=512 / RATE)


def test_the_spectrogram_is_in_decibels_and_hertz(tones):
    waveform = burst("high", 0.9, 8)
    found = explain_class(tones, waveform).map
    with torch.no_grad():
        db = tones.features.log_mel(waveform[None])[0]
    assert found.unit == "dB"
    torch.testing.assert_close(found.spectrogram, db)
    torch.testing.assert_close(found.band_edges, band_edges(tones.features))
    assert found.frame_seconds == HOP / RATE


class Rows(nn.Module):
    """A front end of images without mel bands."""

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate, self.min_samples, self.output_shape = RATE, 1, [1, 20]

    @torch.jit.export
    def frame_counts(self, lengths: torch.Tensor) -> torch.Tensor:
        return lengths // 200

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return waveform.unfold(1, 200, 200)[:, :, ::10].transpose(1, 2).unsqueeze(1)


def test_front_ends_without_bands_tell_what_they_can():
    pipeline = untrained(CNN(3, (1, 20), channels=(8, 16)), Rows())
    found = explain_class(pipeline, burst("low", 0.5, 9))
    assert (found.map.band_edges, found.map.unit) == (None, "")
    assert found.map.frame_seconds == pytest.approx(200 / RATE)
    assert "Hz" not in found.reason
    assert found.reason.endswith(" s")
    figure = explanation(found)
    assert figure.axes[0].get_ylabel() == "row"


def test_silence_that_was_cut_out_is_told():
    waveform = torch.zeros(3 * RATE)
    waveform[2 * RATE :] = 0.3 * torch.randn(RATE)
    model = CNN(3, (1, 32), channels=(8, 16))
    note = "(seconds count without the silence that was cut out)"
    cut = untrained(model, preprocess=RemoveSilence(RATE))
    assert explain_class(cut, waveform).reason.endswith(note)
    kept = untrained(model, preprocess=ReduceNoise())
    assert note not in explain_class(kept, waveform).reason


@pytest.mark.parametrize("as_file", [False, True])
def test_of_long_recordings_the_surest_minute_is_explained(tones, as_file):
    waveform = 0.02 * torch.randn(150 * RATE, generator=torch.Generator().manual_seed(3))
    for start in range(62, 118, 2):
        waveform[start * RATE :][: 2 * RATE] = burst("high", 0.5, start)
    source = wav(waveform.numpy()) if as_file else waveform
    found = explain_class(tones, source, label="high")
    assert found.seconds == 150
    assert found.map.start_seconds == 60
    assert found.map.weights.shape[1] == 60 * RATE // HOP + 1
    assert found.reason.startswith("in the surest minute, 60-120 s, most speaks for 'high' at ")
    frame = int(found.map.weights.argmax()) % found.map.weights.shape[1]
    assert 62 <= 60 + frame * found.map.frame_seconds <= 118
    with torch.no_grad():
        p = tones(waveform[None, 60 * RATE : 120 * RATE])[0, 1]
    assert found.confidence == pytest.approx(float(p), abs=1e-5)


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.51, 3.3])
def test_clips_of_any_length_are_explained_and_drawn(tones_file, seconds):
    found = explain_class(tones_file, wav(noise(seconds, 44100, 2), 44100))
    assert found.seconds == pytest.approx(seconds, abs=2 / RATE)
    assert pixels(explanation(found, "a $ name\udcff <b>.wav")).std() > 10


def test_silence_has_a_picture_too(tones):
    assert pixels(explanation(explain_class(tones, torch.zeros(RATE)))).std() > 5


def test_classes_that_nothing_speaks_for_say_so(tones):
    class Never(nn.Module):
        def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            return torch.stack([-x.square().sum(dim=(1, 2, 3)), x.sum(dim=(1, 2, 3)) * 0], dim=1)

    pipeline = Pipeline(tones.features, Never(), labels=["a", "b"], sample_rate=RATE)
    found = explain_class(pipeline, burst("low", 0.5, 1), label="a")
    assert found.reason.startswith("nothing speaks for 'a' more than for the others")
    assert not found.map.weights.any()


# --- which features -------------------------------------------------------------------------------


def classic(fitted: Any) -> Pipeline:
    features = SummaryVector(RATE)
    x = features(0.1 * torch.randn(30, RATE, generator=torch.Generator().manual_seed(1))).numpy()
    fitted.fit(x, np.arange(30) % 3)
    return Pipeline(features, ClassicModel(fitted), labels=LABELS, sample_rate=RATE).eval()


@pytest.mark.parametrize(
    "fitted",
    [
        RandomForestClassifier(20, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=["forest", "logistic"],
)
def test_classic_models_name_features(fitted):
    pipeline = classic(fitted)
    file = wav(noise(1.2))
    found = explain_class(pipeline, file)
    whole = predict(pipeline, file, explain=10)[0]
    assert found.contributions == pytest.approx(whole.contributions)
    assert list(found.contributions) == list(whole.contributions)
    assert (found.label, found.map) == (whole.label, None)
    assert set(found.contributions) <= set(pipeline.features.names)
    first, value = next((n, v) for n, v in found.contributions.items() if v > 0)
    assert f"speak most for {found.label!r}: {first} {value:+.3g}" in found.reason
    another = next(label for label in LABELS if label != found.label)
    assert explain_class(scripted(pipeline), file, label=another).label == another


def test_an_mlps_contributions_are_gradient_times_distance():
    model = untrained(MLP(3, (1, 32), hidden=(24, 16))).model
    x, counts = torch.randn(4, 1, 32, 50), torch.tensor([50, 40, 30, 20])
    found = model.contributions(x, counts)
    vector = model.pooling(x, counts).detach()
    jacobian = torch.autograd.functional.jacobian(lambda v: model.layers(v).sum(dim=0), vector)
    expected = jacobian.permute(1, 2, 0) * (vector - model.layers[0].running_mean)[..., None]
    torch.testing.assert_close(found, expected.double(), atol=1e-4, rtol=1e-4)


def test_a_linear_models_contributions_add_up_to_its_logits():
    model = untrained(Linear(3, (1, 32))).model
    x, counts = torch.randn(4, 1, 32, 50), torch.tensor([50, 40, 30, 20])
    total = model.contributions(x, counts).sum(dim=1) + model.layers[-1].bias.double()
    torch.testing.assert_close(total, model(x, counts).double(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("wrap", [None, Ensemble])
def test_networks_on_vectors_name_features(wrap):
    features = SummaryVector(RATE)
    member = partial(MLP, hidden=(16,))
    model = member(3, (270,)) if wrap is None else Ensemble(3, (270,), member=member, n_members=2)
    pipeline = untrained(model, features, min_duration=0.6)
    file = wav(noise(1.2))
    found = explain_class(pipeline, file)
    assert len(found.contributions) == 10
    assert set(found.contributions) <= set(features.names)
    values = np.abs(list(found.contributions.values()))
    assert (np.diff(values) <= 0).all()
    exported = explain_class(scripted(pipeline), file)
    assert exported.contributions == pytest.approx(found.contributions, rel=1e-3)
    answer = predict(pipeline, file, explain=3)[0]
    assert answer.contributions == dict(list(found.contributions.items())[:3])


@pytest.mark.parametrize("name", ["knn", "svm"])
def test_models_that_tell_nothing_are_refused(name):
    fitted = build_classifier(name)
    message = "says neither where nor in which features it hears a class; networks on spectrogram"
    with pytest.raises(ParameterError, match=message):
        explain_class(classic(fitted), wav(noise(1.0)))


def test_wrong_use_is_refused(tones):
    clip = burst("low", 0.5, 1)
    with pytest.raises(ParameterError, match=r"label='middle': is no class .* has low, high, none"):
        explain_class(tones, clip, label="middle")
    with pytest.raises(ParameterError, match=r"source: a waveform must be \(time,\), got 2 axes"):
        explain_class(tones, clip[None])
    with pytest.raises(ParameterError, match="this is a detector"):
        explain_class(vector_detector(), clip)
    with pytest.raises(ParameterError, match="batch_size=0"):
        explain_class(tones, clip, batch_size=0)
    with pytest.raises(DecodeError, match="holds no samples"):
        explain_class(tones, torch.zeros(0))
    with pytest.raises(DecodeError, match="not a readable audio file"):
        explain_class(tones, b"RIFF no audio")


# --- pictures -------------------------------------------------------------------------------------


def test_the_pictures_axes_are_seconds_and_kilohertz(tones):
    found = explain_class(tones, burst("high", 0.9, 10))
    figure = explanation(found, "tone.wav")
    above, below = figure.axes[:2]
    (beside,) = (axes for axes in figure.axes if axes.get_title() == "probability")
    shown = np.asarray(above.images[0].get_array())
    assert shown.max() == 0
    assert above.images[0].get_clim()[0] >= -80
    left, right, bottom, top = above.images[0].get_extent()
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert 0.9 <= left + (column + 0.5) * (right - left) / shown.shape[1] <= 1.2
    ticks = {
        t.get_text(): y for t, y in zip(above.get_yticklabels(), above.get_yticks(), strict=True)
    }
    height = bottom + (row + 0.5) * (top - bottom) / len(shown)
    assert ticks["2"] < height < ticks["2"] + 4  # 2.3 kHz
    np.testing.assert_array_equal(np.asarray(below.images[1].get_array()), found.map.weights)
    assert (below.get_xlabel(), below.get_ylabel()) == ("seconds", "kHz")
    assert {axes.get_ylabel() for axes in figure.axes} >= {"weight", "dB below the loudest"}
    texts = [text.get_text() for text in beside.texts]
    assert texts[0] == "high"
    assert texts[1] == f"{found.confidence:.0%}"
    assert figure.get_suptitle().startswith(f"tone.wav: high, {found.confidence:.0%}\nmost speaks")


def test_bars_of_features_are_what_they_add():
    found = explain_class(classic(RandomForestClassifier(20, random_state=0)), wav(noise(1.2)))
    figure = explanation(found, "a\n$b$.wav")
    bars = [bar.get_width() for bar in figure.axes[0].patches]
    assert bars == pytest.approx(list(found.contributions.values()))
    colours = {
        bar.get_facecolor()
        for bar, value in zip(figure.axes[0].patches, bars, strict=True)
        if value > 0
    }
    assert len(colours) == 1
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == list(found.contributions)
    assert "left: against it" in figure.axes[0].get_xlabel()
    assert figure.get_suptitle().startswith("a \\$b\\$.wav: ")


def test_nothing_of_a_picture_is_cut_off(tones):
    long = "a very long name of a class, longer than any picture is wide, of sounds"
    pipeline = Pipeline(
        tones.features, tones.model, labels=[long, "<script>", "b"], sample_rate=RATE
    )
    figure = explanation(explain_class(pipeline.eval(), burst("low", 0.5, 1)), f"{long}.wav")
    width, height = pixels(figure).shape[1::-1]
    renderer: Any = figure.canvas
    for axes in figure.axes:
        for text in [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]:
            box = text.get_window_extent(renderer.get_renderer())
            if text.get_text():
                assert 0 <= box.x0 < box.x1 <= width
                assert 0 <= box.y0 < box.y1 <= height
    # The label and its probability stand apart: one above the bar, one in it.
    (beside,) = (axes.texts for axes in figure.axes if axes.get_title() == "probability")
    first, second = (text.get_window_extent(renderer.get_renderer()) for text in beside[:2])
    assert first.y0 > second.y1
