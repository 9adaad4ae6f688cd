import librosa
import numpy as np
import pytest
import torch
from contract import run_on_fake_cuda

from audiotorch.audio import (
    Normalize,
    NormalizeLoudness,
    PadOrTrim,
    PreEmphasis,
    ReduceNoise,
    RemoveSilence,
    Resample,
    ToMono,
)
from audiotorch.errors import ParameterError

MODULES = {
    "resample": Resample(44100, 16000),
    "halve": Resample(44100, 22050),
    "same_rate": Resample(16000, 16000),
    "pad": PadOrTrim(100, 3.0),
    "trim": PadOrTrim(100, 1.5),
    "peak": Normalize(),
    "rms": Normalize("rms", target_rms=0.2),
    "emphasis": PreEmphasis(),
    # Noise has no silence, but louder and quieter frames.
    "silence": RemoveSilence(8000, top_db=0.3, pad_ms=10),
    "denoise": ReduceNoise(1.0),
    "loudness": NormalizeLoudness(8000),
}


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", MODULES)
def test_batched_equals_alone(name):
    module = MODULES[name]
    clips = [noise(n, seed=n) for n in (3000, 1, 1203, 211)]
    batch = torch.full((4, 3300), torch.nan)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    lengths = torch.tensor([len(clip) for clip in clips])
    if name == "same_rate":
        batch = batch.nan_to_num()
    before = batch.clone()
    out, new_lengths = module(batch, lengths)
    torch.testing.assert_close(batch, before, rtol=0, atol=0, equal_nan=True)
    for row, n, clip in zip(out, new_lengths.tolist(), clips, strict=True):
        alone, own = module(clip)
        n_own = len(alone) if own is None else int(own)
        assert n == n_own
        torch.testing.assert_close(row[:n], alone[:n], rtol=0, atol=2e-6)
        assert not row[n:].any()


@pytest.mark.parametrize("name", MODULES)
def test_a_nan_stays_in_its_clip(name):
    waveform = noise(2, 600)
    clean = MODULES[name](waveform)[0][1]
    waveform[0, 10] = torch.nan
    torch.testing.assert_close(MODULES[name](waveform)[0][1], clean)


@pytest.mark.parametrize("shape", [(30,), (2, 30), (2, 3, 30), (0, 30), (2, 0), (1,)])
@pytest.mark.parametrize("name", MODULES)
def test_leading_axes_are_free(name, shape):
    waveform = noise(*shape)
    out, lengths = MODULES[name](waveform, torch.full(shape[:-1], shape[-1]))
    assert out.shape[:-1] == waveform.shape[:-1]
    assert lengths.shape == waveform.shape[:-1]
    if len(shape) == 3:
        torch.testing.assert_close(out[1, 2], MODULES[name](waveform[1, 2])[0])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODULES)
def test_scripted_equals_eager(name):
    scripted = torch.jit.script(MODULES[name])
    for shape in ((2, 900), (3, 55), (400,)):
        waveform = noise(*shape)
        lengths = torch.full(shape[:-1], shape[-1] // 2)
        for args in ((waveform,), (waveform, lengths)):
            torch.testing.assert_close(scripted(*args), MODULES[name](*args))
    with pytest.raises(torch.jit.Error, match="must be one per clip"):
        scripted(noise(2, 50), torch.tensor([5]))


@pytest.mark.parametrize("name", MODULES)
def test_exports_with_free_batch_and_time(name):
    auto = torch.export.Dim.AUTO
    program = torch.export.export(
        MODULES[name],
        (noise(2, 700), torch.tensor([700, 300])),
        dynamic_shapes=({0: auto, 1: auto}, {0: auto}),
    )
    (shape,) = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name == "waveform"
    ]
    assert all(isinstance(size, torch.SymInt) for size in shape)
    for n in (90, 1234, 20_000):
        waveform, lengths = noise(3, n), torch.tensor([n, 1, n // 2])
        torch.testing.assert_close(
            program.module()(waveform, lengths), MODULES[name](waveform, lengths)
        )


@pytest.mark.parametrize("name", MODULES)
def test_runs_on_fake_cuda(name):
    out, lengths = run_on_fake_cuda(MODULES[name], noise(2, 700), torch.tensor([700, 300]))
    assert out.device.type == lengths.device.type == "cuda"
    run_on_fake_cuda(MODULES[name], noise(2, 700))
    assert run_on_fake_cuda(ToMono(), noise(2, 3, 700)).shape == (2, 700)


@pytest.mark.parametrize("name", MODULES)
def test_state_is_empty_and_double_precision_survives(name):
    assert not MODULES[name].state_dict()
    assert MODULES[name](noise(300, dtype=torch.float64))[0].dtype == torch.float64


def test_to_mono_equals_librosa():
    waveform = noise(2, 3, 50)
    expected = np.stack([librosa.to_mono(clip.numpy()) for clip in waveform])
    np.testing.assert_allclose(ToMono()(waveform).numpy(), expected, atol=1e-7)
    with pytest.raises(ParameterError, match=r"must be \(\.\.\., channel, time\)"):
        ToMono()(noise(50))


@pytest.mark.parametrize("level", [1.0, 1e-3, 1e-30, 1e-39, 0.0, 1e30])
def test_peak_equals_librosa(level):
    clip = noise(400) * level
    expected = librosa.util.normalize(clip.numpy())
    np.testing.assert_allclose(Normalize()(clip)[0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("level", [1.0, 1e-3, 1e-30, 1e30])
def test_rms_reaches_its_target(level):
    clip = noise(2, 400) * level
    scaled, _ = Normalize("rms", 0.2)(clip, torch.tensor([400, 100]))
    rms = librosa.feature.rms(y=scaled[1, :100].numpy(), frame_length=100, center=False)
    assert rms.item() == pytest.approx(0.2, rel=1e-5)
    silent = torch.zeros(3, 9)
    assert torch.equal(Normalize("rms")(silent)[0], silent)


def test_pad_or_trim_counts_padding_as_padding():
    padded, lengths = PadOrTrim(100, 0.5)(torch.ones(2, 30))
    assert padded.shape == (2, 50)
    assert padded.sum(dim=1).tolist() == [30, 30]
    assert lengths.tolist() == [30, 30]
    trimmed, lengths = PadOrTrim(100, 0.1)(torch.ones(2, 30), torch.tensor([30, 4]))
    assert trimmed.sum(dim=1).tolist() == [10, 4]
    assert lengths.tolist() == [10, 4]


def test_pre_emphasis_equals_librosa(recordings):
    for recording in recordings:
        for dtype, limit in ((np.float32, 1e-7), (np.float64, 1e-15)):
            clip = recording.samples.astype(dtype)
            for coef in (0.97, 0.5, 0.0, 1.0):
                expected = librosa.effects.preemphasis(clip, coef=coef)
                actual = PreEmphasis(coef)(torch.from_numpy(clip))[0].numpy()
                np.testing.assert_allclose(actual, expected, atol=limit, rtol=0)


def test_pre_emphasis_lessens_a_low_tone_and_keeps_a_high_one():
    time = torch.arange(8000, dtype=torch.float64) / 8000
    for frequency, gain in ((50.0, 0.05), (3900.0, 1.97)):
        tone = torch.sin(2 * torch.pi * frequency * time)
        assert float(PreEmphasis()(tone)[0][1:].abs().max()) == pytest.approx(gain, abs=0.01)


def test_pre_emphasis_of_one_sample_is_that_of_a_constant():
    one, _ = PreEmphasis()(torch.tensor([0.5]))
    batch, _ = PreEmphasis()(torch.tensor([[0.5, 9.0, 9.0], [0.5, 0.5, 9.0]]), torch.tensor([1, 2]))
    torch.testing.assert_close(one, torch.tensor([1.0]))
    torch.testing.assert_close(batch, torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.015, 0.0]]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PadOrTrim(0, 1.0), "sample_rate=0: must be a positive"),
        (lambda: PadOrTrim(100, -1.0), "duration=-1.0: must be above 0 seconds"),
        (lambda: PadOrTrim(100, 0.001), "duration=0.001: .* at least one sample"),
        (lambda: PadOrTrim(100, float("nan")), "duration=nan: must be above 0"),
        (lambda: Normalize("loud"), 'method=\'loud\': must be "peak" or "rms"'),
        (lambda: Normalize("rms", 0.0), "target_rms=0.0: must be above 0"),
        (lambda: PreEmphasis(1.5), "coef=1.5: must be 0 to 1, such as 0.97"),
        (lambda: PreEmphasis(float("nan")), "coef=nan: must be 0 to 1"),
        (lambda: Normalize()(torch.ones(5, dtype=torch.int16)), "must be a float tensor"),
        (lambda: Normalize()(torch.tensor(1.0)), "must be a float tensor"),
        (lambda: Normalize()(torch.ones(2, 5), torch.tensor(5)), "must be one per clip"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ParameterError, match=message):
        build()
