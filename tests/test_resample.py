from pathlib import Path

import librosa
import numpy as np
import pytest
import soxr
import torch

from audiotorch.audio import Resample, load
from audiotorch.errors import ParameterError

RATES = [
    (44100, 22050),
    (8000, 22050),
    (16000, 22050),
    (44100, 16000),
    (48000, 16000),
    (22050, 8000),
]


def noise(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def files(root: Path) -> list[Path]:
    """A few real clips of each set."""
    patterns = ("fsdd/**/*.wav", "esc10/**/*.ogg", "speech/**/*.flac", "music_examples/**/*.ogg")
    return [file for p in patterns for file in sorted(root.glob(p))[::37][:3]]


@pytest.mark.parametrize(("orig", "new"), RATES)
def test_resample_equals_soxr_on_recordings(orig, new, data_root):
    module = Resample(orig, new)
    for file in files(data_root):
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


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Resample(0, 8000), "orig_freq=0: must be a positive whole number"),
        (lambda: Resample(8000, -1), "new_freq=-1: must be a positive whole number"),
        (lambda: Resample(8000.5, 4000), "orig_freq=8000.5: must be a positive whole"),
        (lambda: Resample(44100, 44099), "reduced to 44100:44099, must have no term above"),
    ],
)
def test_resample_refuses(build, message):
    with pytest.raises(ParameterError, match=message):
        build()
