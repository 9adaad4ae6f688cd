import os
from pathlib import Path

import librosa
import numpy as np
import pytest
import soxr
import torch
from contract import run_on_fake_cuda

from audiotorch.audio import Normalize, PadOrTrim, Resample, ToMono, load
from audiotorch.errors import ParameterError

RATES = [
    (44100, 22050),
    (8000, 22050),
    (16000, 22050),
    (44100, 16000),
    (48000, 16000),
    (22050, 8000),
]
MODULES = {
    "resample": Resample(44100, 16000),
    "halve": Resample(44100, 22050),
    "same_rate": Resample(16000, 16000),
    "pad": PadOrTrim(100, 3.0),
    "trim": PadOrTrim(100, 1.5),
    "peak": Normalize(),
    "rms": Normalize("rms", target_rms=0.2),
}


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def recordings():
    """A few real clips of each set, by a glob under AUDIOTORCH_DATA."""
    root = os.environ.get("AUDIOTORCH_DATA")
    if not root:
        pytest.skip("AUDIOTORCH_DATA is unset: no recordings to compare on")
    patterns = ("fsdd/**/*.wav", "esc10/**/*.ogg", "speech/**/*.flac", "music_examples/**/*.ogg")
    return [file for p in patterns for file in sorted(Path(root).glob(p))[::37][:3]]


@pytest.mark.parametrize(("orig", "new"), RATES)
def test_resample_equals_soxr_on_recordings(orig, new):
    module = Resample(orig, new)
    for file in recordings():
        clip = load(file, orig, duration=3.0)[0][0]
        # From the middle too: a clip that starts loud shows soxr's start-up.
        for part in (clip, clip[len(clip) // 2 :]):
            expected = librosa.resample(
                part.numpy(), orig_sr=orig, target_sr=new, res_type="soxr_hq"
            )
            actual = module(part)[0].numpy()
            # float32 rounding in soxr and here is relative to the input's peak, not the output's.
            peak = float(part.abs().max())
            assert np.abs(actual - expected).max() <= 2e-6 * peak + 1e-12


@pytest.mark.parametrize(("orig", "new"), [*RATES, (11025, 48000), (1001, 1000)])
@pytest.mark.parametrize("n", [1, 7, 500, 20011])
def test_resample_equals_soxr_in_float64(orig, new, n):
    waveform = noise(n, dtype=torch.float64)
    actual = Resample(orig, new)(waveform)[0].numpy()
    expected = soxr.resample(waveform.numpy(), orig, new, quality="HQ")
    assert len(actual) == -(-n * new // orig)
    # The onset is kept down to 1e-6 of the kernel's peak; noise starts at full level.
    np.testing.assert_allclose(actual[: len(expected)], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("orig", "new"), RATES)
def test_resample_keeps_constants_and_tones(orig, new):
    module = Resample(orig, new)
    constant = module(torch.ones(orig, dtype=torch.float64))[0]
    edge = new // 20
    torch.testing.assert_close(
        constant[edge:-edge], torch.ones_like(constant[edge:-edge]), atol=1e-6, rtol=0
    )
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(orig, dtype=torch.float64) / orig)
    spectrum = torch.fft.rfft(module(tone)[0]).abs()
    assert int(spectrum.argmax()) == 440


def test_resample_removes_what_the_new_rate_cannot_hold():
    tone = torch.sin(2 * torch.pi * 9000 * torch.arange(44100, dtype=torch.float64) / 44100)
    assert Resample(44100, 16000)(tone)[0][400:-400].abs().max() < 1e-5


def test_resample_at_one_rate_is_the_identity():
    waveform = noise(2, 50)
    same, lengths = Resample(8000, 8000)(waveform, torch.tensor([50, 20]))
    assert same is waveform
    assert lengths.tolist() == [50, 20]


def test_resample_has_gradients():
    module = Resample(8, 5)
    waveform = noise(2, 40, dtype=torch.float64).requires_grad_()
    lengths = torch.tensor([40, 23])
    assert torch.autograd.gradcheck(lambda x: module(x, lengths)[0], waveform)


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
    for waveform, lengths in ((noise(5, 1234), torch.arange(5) * 100), (noise(3, 90), None)):
        lengths = torch.tensor([90, 1, 40]) if lengths is None else lengths
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


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Resample(0, 8000), "orig_freq=0: must be a positive whole number"),
        (lambda: Resample(8000, -1), "new_freq=-1: must be a positive whole number"),
        (lambda: Resample(8000.5, 4000), "orig_freq=8000.5: must be a positive whole"),
        (lambda: Resample(44100, 44099), "reduced to 44100:44099, must have no term above"),
        (lambda: PadOrTrim(0, 1.0), "sample_rate=0: must be a positive"),
        (lambda: PadOrTrim(100, -1.0), "duration=-1.0: must be above 0 seconds"),
        (lambda: PadOrTrim(100, 0.001), "duration=0.001: .* at least one sample"),
        (lambda: PadOrTrim(100, float("nan")), "duration=nan: must be above 0"),
        (lambda: Normalize("loud"), 'method=\'loud\': must be "peak" or "rms"'),
        (lambda: Normalize("rms", 0.0), "target_rms=0.0: must be above 0"),
        (lambda: Normalize()(torch.ones(5, dtype=torch.int16)), "must be a float tensor"),
        (lambda: Normalize()(torch.tensor(1.0)), "must be a float tensor"),
        (lambda: Normalize()(torch.ones(2, 5), torch.tensor(5)), "must be one per clip"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ParameterError, match=message):
        build()
