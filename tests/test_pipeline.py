import functools
import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import table
from contract import run_on_fake_cuda, scripted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from audiotorch.audio import (
    Normalize,
    NormalizeLoudness,
    PadOrTrim,
    PreEmphasis,
    ReduceNoise,
    RemoveSilence,
    Resample,
)
from audiotorch.errors import ParameterError
from audiotorch.features import (
    EnvelopeRhythm,
    MFCCStatistics,
    SoundProfile,
    SpectrogramImage,
    SummaryVector,
    TextureStatistics,
    TorchaudioStatistics,
)
from audiotorch.models import CNN, MLP, Ensemble, Linear
from audiotorch.pipeline import Pipeline, Prediction, predict

RATE = 8000
LABELS = ["dog", "rain", "clock"]
SIZES = {"sample_rate": RATE, "n_fft": 256, "hop_length": 80}
SECONDS = (1.3, 0.02, 0.5, 0.9, 2.0, 0.31, 1.999, 0.7)
FRONTS = {
    "image": lambda: SpectrogramImage(**SIZES, n_mels=24),
    "bands": lambda: SpectrogramImage(**SIZES, n_mels=24, normalize="band", deltas=True),
    "word": lambda: SpectrogramImage(**SIZES, n_mels=24, n_frames=32, trim_db=30.0),
    "dataset": lambda: SpectrogramImage(**SIZES, n_mels=24, normalize="dataset"),
    "statistics": lambda: MFCCStatistics(**SIZES, n_mfcc=8, n_mels=24),
    "texture": lambda: TextureStatistics(**SIZES, n_mels=24, n_bands=8, modulation_frames=64),
    "profile": lambda: SoundProfile(**SIZES, n_mels=24, n_bands=8, modulation_frames=64),
    "rhythm": lambda: EnvelopeRhythm(**SIZES, max_lag=0.6),
    "summary": lambda: SummaryVector(RATE),
    "torchaudio": lambda: TorchaudioStatistics(RATE, n_mfcc=13, n_mels=40),
}
MODELS = {
    "cnn": CNN,
    "mlp": MLP,
    "linear": Linear,
    "ensemble": functools.partial(Ensemble, member=MLP, n_members=2),
}
COMBINATIONS = [(front, model) for front in FRONTS for model in MODELS]
for vector in ("statistics", "texture", "profile", "rhythm", "summary", "torchaudio"):
    COMBINATIONS.remove((vector, "cnn"))  # it reads images


class Score(nn.Module):
    """A detector for tests: one number a clip."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return x.sum(dim=(1, 2, 3)) / lengths + 3.0


def signal(batch: int, n_samples: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    level = 0.5 ** torch.arange(batch)[:, None]
    return 0.3 * level * torch.randn(batch, n_samples, generator=generator)


def clips() -> tuple[Tensor, Tensor]:
    """Clips of several lengths; what lies past a clip's end is left noisy."""
    lengths = torch.tensor([round(seconds * RATE) for seconds in SECONDS])
    return signal(len(SECONDS), int(lengths.max())), lengths


def build(front: str = "image", model: str = "cnn", **options) -> Pipeline:
    """A Pipeline whose BatchNorm statistics and dataset statistics are not trivial."""
    torch.manual_seed(0)
    features = FRONTS[front]()
    waveform, lengths = clips()
    if front == "dataset":
        features.fit([(waveform, lengths)])
    if front == "summary":  # nine frames, which half a second at 8 kHz has not
        options.setdefault("min_duration", 0.6)
    network = MODELS[model](len(LABELS), features.output_shape)
    pipeline = Pipeline(features, network, **{"labels": LABELS, "sample_rate": RATE, **options})
    target = torch.arange(len(waveform)) % len(LABELS)
    optimizer = torch.optim.SGD(pipeline.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(pipeline.logits(waveform, lengths), target)
        loss.backward()
        optimizer.step()
    return pipeline.eval()


def detector(**options) -> Pipeline:
    return Pipeline(FRONTS["image"](), Score(), sample_rate=RATE, task="anomaly", **options).eval()


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return build()


def close(ours: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, expected, atol=atol, rtol=0)


# --- forward --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("front", "model"), COMBINATIONS)
def test_alone_in_a_batch_and_padded_agree(front, model):
    pipeline = build(front, model)
    waveform, lengths = clips()
    with torch.no_grad():
        together = pipeline.logits(waveform, lengths)
        padded = nn.functional.pad(waveform, (0, 3 * RATE))
        close(pipeline.logits(padded, lengths), together)
        for i, n in enumerate(lengths.tolist()):
            close(pipeline.logits(waveform[i : i + 1, :n])[0], together[i])
    assert together.shape == (len(SECONDS), len(LABELS))
    assert (together[1:] - together[:1]).abs().amax() > 1e-3, "the answers hardly differ"


@pytest.mark.parametrize(("front", "model"), COMBINATIONS)
def test_runs_on_fake_cuda(front, model):
    waveform, lengths = clips()
    pipeline = build(front, model)
    for arguments in ((waveform, lengths), (waveform, None)):
        answer = run_on_fake_cuda(pipeline, *arguments)
        assert answer.device.type == "cuda"
        assert answer.shape == (len(SECONDS), len(LABELS))


class Timeline(nn.Module):
    """A Pipeline's other methods as a forward, for the device check."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self.pipeline = pipeline

    def forward(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        score = self.pipeline(waveform, lengths)
        return [*self.pipeline.timeline(waveform, lengths, 0.5, 0.25), self.pipeline.p_value(score)]


@pytest.mark.parametrize("steps", [[], [Resample(RATE, RATE // 2), Resample(RATE // 2, RATE)]])
def test_timeline_p_value_and_preprocessing_run_on_fake_cuda(steps):
    pipeline = detector(preprocess=[Normalize(), PadOrTrim(RATE, 1.5), *steps])
    pipeline.calibration = torch.arange(10.0)
    for result in run_on_fake_cuda(Timeline(pipeline), *clips()):
        assert result.device.type == "cuda"


def test_probabilities_are_softmax_of_logits_over_temperature(pipeline):
    waveform, lengths = clips()
    warm = build()
    warm.temperature.fill_(2.5)
    with torch.no_grad():
        logits = pipeline.logits(waveform, lengths).double().numpy()
        for module, temperature in ((pipeline, 1.0), (warm, 2.5)):
            exponential = np.exp(logits / temperature)
            expected = exponential / exponential.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(module(waveform, lengths), expected, atol=1e-6)


def test_multilabel_probabilities_are_sigmoids():
    waveform, lengths = clips()
    pipeline = build(task="multilabel")
    pipeline.temperature.fill_(2.5)
    with torch.no_grad():
        expected = 1 / (1 + np.exp(-pipeline.logits(waveform, lengths).double().numpy() / 2.5))
        np.testing.assert_allclose(pipeline(waveform, lengths), expected, atol=1e-6)


def test_anomaly_score_passes_through():
    waveform, lengths = clips()
    pipeline = detector()
    pipeline.temperature.fill_(2.5)
    assert pipeline(waveform, lengths).shape == (len(SECONDS),)
    assert torch.equal(pipeline(waveform, lengths), pipeline.logits(waveform, lengths))


def test_no_lengths_means_full_clips(pipeline):
    waveform = signal(3, 6000)
    full = torch.full((3,), 6000)
    assert torch.equal(pipeline(waveform), pipeline(waveform, full))
    assert torch.equal(pipeline.front(waveform)[1], pipeline.front(waveform, full)[1])


def test_lengths_past_the_end_mean_full_clips(pipeline):
    waveform = signal(3, 6000)
    close(pipeline(waveform, torch.tensor([6001, 99999, 6000])), pipeline(waveform), atol=0)


@pytest.mark.parametrize("n_samples", [0, 1, 400, 3999])
def test_short_clips_count_as_padded_to_the_minimum(pipeline, n_samples):
    waveform = signal(2, n_samples)
    padded = nn.functional.pad(waveform, (0, 4000 - n_samples))
    close(pipeline(waveform), pipeline(padded, torch.full((2,), 4000)))
    close(pipeline(waveform), pipeline(padded, torch.full((2,), n_samples)))


@pytest.mark.parametrize("min_duration", [0.0, 0.1, 1.25])
def test_minimum_duration_is_a_choice(min_duration):
    pipeline = build(min_duration=min_duration)
    counts = pipeline.front(signal(2, 1600), torch.tensor([1600, 80]))[1]
    least = round(min_duration * RATE)
    assert counts.tolist() == [1 + max(1600, least) // 80, 1 + max(80, least) // 80]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("front", "model"), COMBINATIONS)
def test_nan_stays_in_its_own_clip(front, model, value):
    pipeline = build(front, model)
    waveform, lengths = clips()
    broken = waveform.clone()
    broken[3, 2000] = value
    broken[0, lengths[0] :] = value
    with torch.no_grad():
        answer, expected = pipeline(broken, lengths), pipeline(waveform, lengths)
    others = torch.arange(len(SECONDS)) != 3
    assert torch.isnan(answer[3]).all()
    close(answer[others], expected[others])


def test_input_is_left_alone(pipeline):
    waveform, lengths = clips()
    before = waveform.clone(), lengths.clone()
    pipeline(waveform, lengths)
    assert torch.equal(waveform, before[0])
    assert torch.equal(lengths, before[1])


def test_front_and_model_are_the_two_halves(pipeline):
    waveform, lengths = clips()
    image, counts = pipeline.front(waveform, lengths)
    assert counts.tolist() == [1 + max(n, 4000) // 80 for n in lengths.tolist()]
    assert torch.equal(pipeline.model(image, counts), pipeline.logits(waveform, lengths))


def test_state_dict_carries_calibration_and_statistics():
    pipeline = build("dataset")
    fresh = Pipeline(FRONTS["dataset"](), CNN(3, (1, 24)), sample_rate=RATE)
    pipeline.temperature.fill_(1.7)
    fresh.load_state_dict(pipeline.state_dict())
    waveform, lengths = clips()
    assert torch.equal(fresh.eval()(waveform, lengths), pipeline(waveform, lengths))


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=4),
    extra=st.integers(0, 5000),
    front=st.sampled_from(["image", "word", "statistics"]),
)
def test_any_lengths_and_padding_give_the_clips_own_answers(lengths, extra, front):
    pipeline = RANDOM.setdefault(front, build(front, "mlp"))
    waveform = signal(len(lengths), max(lengths) + extra, seed=sum(lengths))
    with torch.no_grad():
        together = pipeline.logits(waveform, torch.tensor(lengths))
        for i, n in enumerate(lengths):
            close(pipeline.logits(waveform[i : i + 1, :n])[0], together[i], atol=5e-5)


RANDOM: dict[str, Pipeline] = {}


# --- preprocessing --------------------------------------------------------------------------------


def test_resampler_in_front_brings_any_rate_to_the_features(pipeline):
    torch.manual_seed(0)
    faster = Pipeline(
        pipeline.features,
        pipeline.model,
        labels=LABELS,
        sample_rate=2 * RATE,
        preprocess=Resample(2 * RATE, RATE),
    ).eval()
    assert faster.sample_rate == 2 * RATE
    waveform, lengths = signal(2, 3 * RATE), torch.tensor([3 * RATE, 2 * RATE])
    with torch.no_grad():
        answer = faster(waveform, lengths)
        for i, n in enumerate(lengths.tolist()):
            clip = soxr.resample(waveform[i, :n].numpy(), 2 * RATE, RATE, "HQ")
            # Noise up to the band's edge: the resamplers differ a little at a clip's ends.
            close(answer[i], pipeline(torch.from_numpy(clip)[None])[0], atol=2e-3)
        # The minimum is in seconds, whatever the rate.
        assert faster.front(waveform[:, :100])[1].tolist() == [1 + RATE // 2 // 80] * 2


def test_steps_follow_each_other(pipeline):
    steps = [PadOrTrim(RATE, 0.75), Normalize("rms", 0.05)]
    chained = Pipeline(
        pipeline.features, pipeline.model, labels=LABELS, sample_rate=RATE, preprocess=steps
    ).eval()
    waveform, lengths = clips()
    cut = torch.where(torch.arange(6000) < lengths[:, None], waveform[:, :6000], 0.0)
    kept = lengths.clamp(max=6000)
    rms = (cut.square().sum(1, keepdim=True) / kept[:, None]).sqrt()
    close(chained(waveform, lengths), pipeline(0.05 * cut / rms, kept))


CLEANING = [ReduceNoise(), RemoveSilence(RATE, pad_ms=10), PreEmphasis(), NormalizeLoudness(RATE)]


def bursts() -> tuple[Tensor, Tensor]:
    """Clips of noise with gaps in it that are all but silent, and garbage behind them."""
    waveform, lengths = signal(3, 3 * RATE), torch.tensor([3 * RATE, 2 * RATE, RATE])
    waveform[:, 3000:7000] *= 1e-3
    waveform[:, 12_000:14_000] *= 1e-3
    past = torch.arange(3 * RATE) >= lengths[:, None]
    return waveform.masked_fill(past, torch.nan), lengths


def test_a_cleaned_clip_answers_alone_as_padded_in_a_batch(pipeline):
    cleaned = Pipeline(
        pipeline.features, pipeline.model, labels=LABELS, sample_rate=RATE, preprocess=CLEANING
    ).eval()
    waveform, lengths = bursts()
    with torch.no_grad():
        assert (cleaned.prepare(waveform, lengths)[1] < lengths - 1000).all()
        answer = cleaned(waveform, lengths)
        for row, clip, n in zip(answer, waveform, lengths.tolist(), strict=True):
            close(cleaned(clip[None, :n])[0], row)


@pytest.mark.parametrize("steps", [None, [Resample(2 * RATE, RATE), Normalize()]])
def test_scripted_equals_eager(pipeline, steps):
    rate = RATE if steps is None else 2 * RATE
    eager = Pipeline(
        pipeline.features, pipeline.model, labels=LABELS, sample_rate=rate, preprocess=steps
    ).eval()
    file = scripted(eager)
    waveform, lengths = clips()
    with torch.no_grad():
        for arguments in ((waveform, lengths), (waveform, None)):
            close(file(*arguments), eager(*arguments))
            close(file.logits(*arguments), eager.logits(*arguments))
        ours, expected = (
            file.timeline(waveform, lengths, 0.5, 0.2),
            eager.timeline(waveform, lengths, 0.5, 0.2),
        )
    for a, b in zip(ours, expected, strict=True):
        close(a, b)
    assert list(file.labels) == LABELS
    assert file.sample_rate == rate


def test_scripted_p_value_equals_eager():
    pipeline = detector()
    pipeline.calibration = torch.tensor([0.5, 1.0, 4.0])
    scores = torch.linspace(0, 5, 11)
    assert torch.equal(scripted(pipeline).p_value(scores), pipeline.p_value(scores))


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waveform", "lengths", "message"),
    [
        (torch.zeros(8000), None, r"waveform: must be \(batch, time\), got 1 axes"),
        (torch.zeros(2, 2, 8000), None, r"got 3 axes; .* mix channels with ToMono"),
        (torch.zeros(2, 8000, dtype=torch.int16), None, r"waveform: must be float32 or float64"),
        (torch.zeros(2, 8000).double(), None, r"must have the Pipeline's dtype; use waveform"),
        (torch.zeros(2, 8000).half(), None, r"must have the Pipeline's dtype"),
        (torch.zeros(2, 8000), torch.tensor([1, 2, 3]), r"lengths: must be \(2,\), got \[3\]"),
        (torch.zeros(2, 8000), torch.tensor([8000]), r"lengths: must be \(2,\), got \[1\]"),
        (torch.zeros(2, 8000), torch.tensor(8000), r"lengths: must be \(2,\), got \[\]"),
        (torch.zeros(2, 8000), torch.ones(2, 1).long(), r"lengths: must be \(2,\)"),
        (torch.zeros(2, 8000), torch.tensor([0.5, 1.0]), r"lengths: must be int64 samples"),
    ],
)
@pytest.mark.parametrize("method", ["__call__", "logits", "front", "timeline"])
def test_wrong_shapes_and_types_are_refused(pipeline, waveform, lengths, message, method):
    with pytest.raises(ParameterError, match=message):
        getattr(pipeline, method)(waveform, lengths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "regression"}, r"task='regression': must be one of \('classification'"),
        ({"min_duration": float("nan")}, r"min_duration=nan: must be at least 0"),
        ({"min_duration": -0.1}, r"min_duration=-0\.1: must be at least 0"),
        ({"labels": ["a", "b", "a"]}, r"labels=\['a', 'b', 'a'\]: each name must stand once"),
        ({"sample_rate": 16000}, r"sample_rate=16000: the features expect 8000 Hz and get 16000"),
        (
            {"sample_rate": 16000, "preprocess": Normalize()},
            r"sample_rate=16000: the features expect 8000 Hz and get 16000; .* a Resample",
        ),
        (
            {"sample_rate": 16000, "preprocess": [Resample(44100, 8000)]},
            r"Resample\(44100, 8000\) gets 16000 Hz; build it as Resample\(16000, 8000\)",
        ),
        (
            {"preprocess": RemoveSilence(22050)},
            r"RemoveSilence\(sample_rate=22050\) gets 8000 Hz; build it with sample_rate=8000",
        ),
        ({"preprocess": Resample(8000, 4000)}, r"the features expect 8000 Hz and get 4000"),
    ],
)
def test_wrong_settings_are_refused(pipeline, options, message):
    with pytest.raises(ParameterError, match=message):
        Pipeline(pipeline.features, pipeline.model, **{"sample_rate": RATE, **options})


@pytest.mark.parametrize(("window", "hop"), [(0.0, 0.5), (0.5, 0.0), (-1.0, 0.5), (0.5, 1e-9)])
def test_timeline_needs_windows_and_hops(pipeline, window, hop):
    with pytest.raises(ParameterError, match=r"window_seconds=.* hop_seconds=.* must be above 0"):
        pipeline.timeline(signal(1, 8000), None, window, hop)


# --- p_value --------------------------------------------------------------------------------------


def test_p_value_counts_normal_clips_that_score_as_high():
    pipeline = detector()
    generator = torch.Generator().manual_seed(0)
    normal = torch.randint(0, 20, (37,), generator=generator).float().sort().values
    pipeline.calibration = normal
    scores = torch.arange(-2.0, 24.0, 0.5).reshape(2, 26)
    for score, p in zip(scores.flatten().tolist(), pipeline.p_value(scores).flatten(), strict=True):
        as_high = sum(value >= score for value in normal.tolist())
        assert float(p) == pytest.approx((1 + as_high) / (37 + 1), abs=1e-7)


def test_p_value_of_any_shape():
    pipeline = detector()
    pipeline.calibration = torch.tensor([1.0, 2.0, 3.0])
    assert pipeline.p_value(torch.tensor(2.0)).item() == pytest.approx(0.75)
    columns = torch.tensor([[0.0, 9.0], [9.0, 0.0]])
    assert pipeline.p_value(columns[:, 0]).tolist() == [1.0, 0.25]
    assert pipeline.p_value(columns.double()).shape == (2, 2)
    assert torch.isnan(pipeline.p_value(torch.tensor([float("nan")]))).all()


def test_p_value_without_calibration_says_nothing():
    assert detector().p_value(torch.tensor([-1.0, 5.0])).tolist() == [1.0, 1.0]


# --- timeline -------------------------------------------------------------------------------------


def windows_by_hand(length: int, window: int, hop: int) -> list[int]:
    """Starts at multiples of the hop, until a window reaches the clip's end."""
    starts = [0]
    while starts[-1] + window < length and starts[-1] + hop < length:
        starts.append(starts[-1] + hop)
    return starts


@pytest.mark.parametrize("kind", ["classification", "anomaly"])
@pytest.mark.parametrize(
    ("window_seconds", "hop_seconds"),
    [(1.0, 0.5), (0.7, 0.7), (0.5, 0.3), (0.25, 0.8), (5.0, 1.0), (1.0, 1.0)],
)
def test_timeline_is_forward_on_slices(pipeline, kind, window_seconds, hop_seconds):
    if kind == "anomaly":
        pipeline = detector()
    waveform, lengths = clips()
    window, hop = round(window_seconds * RATE), round(hop_seconds * RATE)
    with torch.no_grad():
        answers, seconds, valid = pipeline.timeline(waveform, lengths, window_seconds, hop_seconds)
        n = len(windows_by_hand(waveform.shape[1], window, hop))
        assert seconds.tolist() == pytest.approx([k * hop / RATE for k in range(n)])
        assert answers.shape == (len(SECONDS), n, *([3] if kind == "classification" else []))
        assert valid.dtype == torch.bool
        for i, length in enumerate(lengths.tolist()):
            starts = windows_by_hand(length, window, hop)
            assert valid[i].tolist() == [True] * len(starts) + [False] * (n - len(starts))
            assert (answers[i, len(starts) :] == 0).all()
            for k, start in enumerate(starts):
                own = waveform[i : i + 1, start : min(start + window, length)]
                close(answers[i, k], pipeline(own)[0])


def test_timeline_without_lengths_takes_full_clips(pipeline):
    waveform = signal(2, 10000)
    full = pipeline.timeline(waveform, torch.tensor([10000, 10000]), 0.5, 0.25)
    for ours, expected in zip(pipeline.timeline(waveform, None, 0.5, 0.25), full, strict=True):
        assert torch.equal(ours, expected)


def test_clip_shorter_than_a_window_has_one_window(pipeline):
    waveform = signal(1, 3000)
    answers, seconds, valid = pipeline.timeline(waveform, None, 1.0, 0.5)
    assert seconds.tolist() == [0.0]
    assert valid.tolist() == [[True]]
    close(answers[:, 0], pipeline(waveform))


def test_timeline_is_the_same_padded(pipeline):
    waveform, lengths = clips()
    expected = pipeline.timeline(waveform, lengths, 0.6, 0.4)
    padded = nn.functional.pad(waveform, (0, 3 * RATE))
    answers, _, valid = pipeline.timeline(padded, lengths, 0.6, 0.4)
    n = expected[0].shape[1]
    assert torch.equal(valid[:, :n], expected[2])
    assert not valid[:, n:].any()
    close(answers[:, :n], expected[0])


# --- predict --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Good and bad files."""
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    for name, rate, shape in (
        ("mono.wav", 8000, (12000,)),
        ("stereo_48k.wav", 48000, (60000, 2)),
        ("six_192k.flac", 192000, (200000, 6)),
        ("short.wav", 8000, (40,)),
        ("no_frames.wav", 8000, (0,)),
    ):
        soundfile.write(folder / name, 0.1 * generator.standard_normal(shape), rate)
    broken = 0.1 * generator.standard_normal(9000)
    broken[4000] = np.nan
    soundfile.write(folder / "nan.wav", broken, 8000, subtype="FLOAT")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is not audio\n" * 20)
    (folder / "truncated.wav").write_bytes((folder / "mono.wav").read_bytes()[:5000])
    (folder / "directory.wav").mkdir()
    return folder


GOOD = ("mono.wav", "stereo_48k.wav", "six_192k.flac", "short.wav")
BAD = {
    "empty.wav": r"empty",
    "text.wav": r"not a readable audio file",
    "nan.wav": r"NaN or infinite samples, the first at 0\.500 s",
    "no_frames.wav": r"holds no samples",
    "truncated.wav": r"truncated",
    "missing.wav": r"(?i)no such file|does not exist",
    "directory.wav": r"(?i)directory|folder",
}


def by_hand(pipeline: Pipeline, path: Path) -> Tensor:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if rate != pipeline.sample_rate:
        n_wanted = math.ceil(len(mono) * pipeline.sample_rate / rate)
        mono = soxr.resample(mono, rate, pipeline.sample_rate, "HQ")[:n_wanted]
    with torch.no_grad():
        return pipeline(torch.from_numpy(np.ascontiguousarray(mono))[None])[0]


def check_answer(prediction: Prediction, pipeline: Pipeline, path: Path) -> None:
    expected = by_hand(pipeline, path)
    assert prediction.file == str(path)
    assert prediction.error is None
    assert list(prediction.probabilities) == LABELS
    close(torch.tensor(list(prediction.probabilities.values())), expected)
    assert prediction.label == LABELS[int(expected.argmax())]
    assert prediction.confidence == prediction.probabilities[prediction.label]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_bad_files_are_named_and_the_others_answered(pipeline, folder, batch_size):
    names = ["empty.wav", *GOOD[:2], *list(BAD)[1:], *GOOD[2:]]
    found = pipeline.predict([folder / name for name in names], batch_size=batch_size)
    assert [Path(prediction.file).name for prediction in found] == names
    for name, prediction in zip(names, found, strict=True):
        if name in GOOD:
            check_answer(prediction, pipeline, folder / name)
            continue
        assert prediction == Prediction(str(folder / name), error=prediction.error)
        with pytest.raises(RuntimeError, match=BAD[name]):
            raise RuntimeError(prediction.error)
        assert name in prediction.error


def test_no_label_where_the_pipeline_abstains(pipeline, folder):
    files = sorted(folder.glob("*.wav"))
    before = predict(pipeline, files)
    level = sorted(a.confidence for a in before if a.error is None)[1]
    pipeline.abstain_below(level)
    module = scripted(pipeline)
    for answers in (predict(pipeline, files), predict(module, files)):
        for old, new in zip(before, answers, strict=True):
            assert new.confidence == pytest.approx(old.confidence, abs=1e-6)
            if old.error is None and old.confidence > level + 1e-6:
                assert new.label == old.label
            if old.error is None and old.confidence < level - 1e-6:
                assert new.label is None
                assert new.error is None
    pipeline.abstain_below(0.0)
    assert [a.label for a in predict(pipeline, files)] == [a.label for a in before]


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_confidence_to_abstain_below_is_a_probability(pipeline, confidence):
    with pytest.raises(ParameterError, match="must be from 0 to 1"):
        pipeline.abstain_below(confidence)


@pytest.mark.parametrize("wrap", [str, Path, lambda path: [path], lambda path: iter([path])])
def test_one_source_or_several(pipeline, folder, wrap):
    (prediction,) = pipeline.predict(wrap(folder / "mono.wav"))
    check_answer(prediction, pipeline, folder / "mono.wav")


def test_bytes_and_file_objects(pipeline, folder):
    content = (folder / "mono.wav").read_bytes()
    expected = pipeline.predict(folder / "mono.wav")[0].probabilities
    with open(folder / "mono.wav", "rb") as file:
        opened = pipeline.predict(file)
    assert opened[0].file == str(folder / "mono.wav")
    (alone,) = pipeline.predict(content)
    buffered, again, bad = pipeline.predict([io.BytesIO(content), content, b"no audio at all"])
    for prediction in (*opened, alone, buffered, again):
        assert prediction.probabilities == pytest.approx(expected, abs=1e-6)
    assert alone.file == again.file == bad.file == "<bytes>"
    assert bad.label is None
    assert bad.error.startswith("<bytes>")


def test_no_sources_have_no_answers(pipeline):
    assert pipeline.predict([]) == []


def test_mode_is_as_before(folder):
    pipeline = build(model="mlp")
    expected = pipeline.predict(folder / "mono.wav")
    pipeline.train()
    before = {name: value.clone() for name, value in pipeline.state_dict().items()}
    assert pipeline.predict(folder / "mono.wav") == expected
    assert pipeline.training
    assert pipeline.model.training
    # Statistics that are not fitted are NaN.
    torch.testing.assert_close(pipeline.state_dict(), before, atol=0, rtol=0, equal_nan=True)
    with pytest.raises(TypeError):
        pipeline.predict(17)
    assert pipeline.training
    pipeline.eval().predict(folder / "mono.wav")
    assert not pipeline.training


def test_scripted_module_predicts_the_same(pipeline, folder):
    paths = [folder / name for name in (*GOOD, *BAD)]
    for ours, expected in zip(
        predict(scripted(pipeline), paths), predict(pipeline, paths), strict=True
    ):
        assert (ours.file, ours.label, ours.error) == (
            expected.file,
            expected.label,
            expected.error,
        )
        assert ours.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_clip_too_short_for_the_features_is_refused_without_a_minimum(folder):
    strict = build("statistics", "mlp", min_duration=0.0)
    short, long = strict.predict([folder / "short.wav", folder / "mono.wav"])
    assert short.label is None
    with pytest.raises(RuntimeError, match=r"short\.wav: lasts 0\.005 s, the features need 0\.080"):
        raise RuntimeError(short.error)
    check_answer(long, strict, folder / "mono.wav")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"batch_size=0: must be at least 1"),
        ({"device": "abacus"}, r"device='abacus': torch cannot use it"),
    ],
)
def test_wrong_use_of_predict_is_refused(pipeline, folder, options, message):
    with pytest.raises(ParameterError, match=message):
        pipeline.predict(folder / "mono.wav", **options)


def test_each_output_needs_a_label(folder):
    with pytest.raises(ParameterError, match=f"labels: 1 for {len(LABELS)} model outputs"):
        build(labels=LABELS[:1]).predict(folder / "mono.wav")


def test_predict_needs_labels(folder):
    with pytest.raises(ParameterError, match=r"labels=\[\]: predict answers by name"):
        build(labels=()).predict(folder / "mono.wav")


# --- real recordings ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_files(data_root) -> list[Path]:
    """Spoken digits at 8 kHz and surroundings at 44.1 kHz, shuffled into each other."""
    digits = table(data_root / "fsdd" / "labels.csv")
    places = table(data_root / "esc10" / "labels.csv")
    found = [data_root / "fsdd" / row["file"] for row in digits[:: len(digits) // 12]][:12]
    found += [data_root / "esc10" / row["file"] for row in places[:: len(places) // 4]][:4]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


@pytest.mark.parametrize("front", ["image", "word", "statistics"])
def test_real_files_are_answered_as_by_hand(real_files, front):
    pipeline = build(front, "mlp")
    for prediction, path in zip(pipeline.predict(real_files), real_files, strict=True):
        assert os.path.samefile(prediction.file, path)
        check_answer(prediction, pipeline, path)


@pytest.mark.parametrize(("front", "model"), COMBINATIONS)
def test_real_clips_alone_in_a_batch_and_padded_agree(recordings, front, model):
    pipeline = build(front, model)
    samples = [torch.from_numpy(recording.samples[: 2 * RATE]).float() for recording in recordings]
    lengths = torch.tensor([len(clip) for clip in samples])
    batch = nn.utils.rnn.pad_sequence(samples, batch_first=True)
    with torch.no_grad():
        together = pipeline(batch, lengths)
        close(pipeline(nn.functional.pad(batch, (0, 3 * RATE)), lengths), together)
        for i, clip in enumerate(samples):
            close(pipeline(clip[None])[0], together[i])


def brute_force_windows(n_samples: int, window: int, hop: int) -> list[int]:
    """Starts of the windows: multiples of the hop, the last one moved back to the clip's end."""
    starts = [0]
    while starts[-1] + window < n_samples:
        starts.append(min(starts[-1] + hop, n_samples - window))
    return starts


@pytest.mark.parametrize("aggregate", ["mean", "max", "top_k"])
def test_a_detectors_clip_score_is_the_aggregate_of_its_windows(aggregate):
    options = {"window": 0.7, "hop": 0.3, "aggregate": aggregate, "min_duration": 0.1}
    pipeline = detector(**options)
    lengths = [20000, 16000, 5601, 5600, 5599, 900, 1]
    waveform = torch.randn(len(lengths), 20000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores = pipeline(waveform, torch.tensor(lengths))
        for row, n_samples, score in zip(waveform, lengths, scores, strict=True):
            starts = brute_force_windows(n_samples, 5600, 2400)
            parts = [row[start : min(start + 5600, n_samples)] for start in starts]
            values = torch.stack([pipeline.logits(part[None])[0] for part in parts])
            highest = values.sort(descending=True)[0][:3].mean()
            expected = {"mean": values.mean(), "max": values.max(), "top_k": highest}
            torch.testing.assert_close(score, expected[aggregate], rtol=1e-6, atol=1e-6)
            found, seconds, valid = pipeline.window_scores(row[None, :n_samples])
            assert valid.all()
            torch.testing.assert_close(found[0], values, rtol=1e-6, atol=1e-6)
            assert seconds[0].tolist() == [start / RATE for start in starts]
    again = scripted(pipeline)(waveform, torch.tensor(lengths))
    torch.testing.assert_close(again, scores, rtol=1e-6, atol=1e-6)
    run_on_fake_cuda(pipeline, waveform, torch.tensor(lengths))


def test_a_window_that_is_not_a_number_stays_in_its_clip():
    pipeline = detector(window=0.5, hop=0.5)
    waveform = torch.randn(2, 12000)
    clean = pipeline(waveform)
    waveform[0, 100] = math.nan
    answer = pipeline(waveform)
    assert answer[0].isnan()
    assert answer[1] == clean[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop": 1.0}, "hop=1.0.*window"),
        ({"window": 0.0}, "window=0.0"),
        ({"window": 1.0, "hop": 1.5}, "no gaps"),
        ({"aggregate": "median"}, "aggregate='median'"),
        ({"top_k": 0}, "top_k=0"),
    ],
)
def test_windows_that_cannot_be_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        detector(**options)


def test_a_classifier_has_no_windows():
    with pytest.raises(ParameterError, match="detectors"):
        Pipeline(FRONTS["image"](), Score(), sample_rate=RATE, window=1.0)


def test_calibration_keeps_thresholds_and_sorted_scores():
    pipeline = detector()
    pipeline.calibrate(torch.tensor([3.0, 1.0, 2.0]), {"warning": 2.0, "alarm": 3.0})
    assert pipeline.calibration.tolist() == [1.0, 2.0, 3.0]
    assert dict(zip(pipeline.threshold_names, pipeline.thresholds.tolist(), strict=True)) == {
        "warning": 2.0,
        "alarm": 3.0,
    }
    assert pipeline.p_value(torch.tensor([3.5, 3.0, 0.0])).tolist() == [0.25, 0.5, 1.0]
    for scores, thresholds in (
        (torch.tensor([1.0]), {"a": 2.0, "b": 1.0}),
        (torch.tensor([math.nan]), {"a": 2.0}),
        (torch.zeros(2, 2), {"a": 2.0}),
        (torch.tensor([1j]), {"a": 2.0}),
        (torch.tensor([1.0]), {"a": math.nan}),
        (torch.tensor([1.0]), {"a": 1e300}),
        (torch.tensor([1.0]), {"a": [2.0]}),
    ):
        with pytest.raises(ParameterError):
            pipeline.calibrate(scores, thresholds)
