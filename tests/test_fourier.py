import librosa
import numpy as np
import pytest
import torch
from contract import peak_error, quietly

from audiotorch.audio.fourier import istft, stft
from audiotorch.errors import ParameterError
from audiotorch.features.filters import window

NOISE = 0.1 * np.random.default_rng(3).standard_normal(22050)
SINE = 0.5 * np.sin(2 * np.pi * 440.0 * np.arange(22050) / 22050)


@pytest.mark.parametrize("n_fft", [16, 15, 400])
@pytest.mark.parametrize("center", [True, False])
def test_stft_equals_librosa(n_fft, center):
    y = np.random.default_rng(0).standard_normal((3, 1000))
    taps = window("hann", n_fft, n_fft)
    ours = stft(torch.from_numpy(y), taps, 7, center)
    expected = librosa.stft(y, n_fft=n_fft, hop_length=7, center=center)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


def test_stft_of_a_short_waveform():
    taps = window("hann", 64, 64)
    assert stft(torch.zeros(1, 1), taps, 16).shape == (1, 33, 1)
    with pytest.raises(ParameterError, match=r"has 0 samples, needs at least 1; pad it"):
        stft(torch.zeros(2, 0), taps, 16)
    with pytest.raises(ParameterError, match=r"has 63 samples, needs at least 64; pad it"):
        stft(torch.zeros(2, 63), taps, 16, center=False)


@pytest.mark.parametrize(
    ("n_fft", "hop_length", "win_length", "name", "center"),
    [
        (2048, 512, 2048, "hann", True),
        (2048, 300, 1200, "hamming", True),
        (511, 100, 511, "hann", True),
        (512, 700, 512, "hann", True),
        (2048, 2048, 2048, "hann", True),
        (512, 128, 512, "hamming", False),
    ],
)
def test_istft_equals_librosa(n_fft, hop_length, win_length, name, center):
    taps = window(name, win_length, n_fft)
    settings = {"n_fft": n_fft, "hop_length": hop_length, "win_length": win_length}
    for n in (4608, 2049, 700):
        y = torch.from_numpy(NOISE[None, :n])
        if not center and n < n_fft:
            continue
        spectrum = stft(y, taps, hop_length, center)
        spectrum = spectrum * torch.rand(spectrum.shape)
        expected = quietly(
            lambda x, n: librosa.istft(
                x, **settings, window=name, center=center, length=n, dtype=np.float64
            ),
            spectrum[0].numpy(),
            n,
        )
        for dtype, limit in ((torch.complex128, 1e-12), (torch.complex64, 1e-6)):
            ours = istft(spectrum.to(dtype), taps, hop_length, n, center)
            assert ours.shape == y.shape
            assert peak_error(ours[0].numpy(), expected) <= limit


def test_istft_returns_the_signal_and_ignores_what_is_past_a_clips_end():
    taps = window("hann", 512, 512)
    y = torch.from_numpy(np.stack([NOISE, SINE]))
    spectrum = stft(y, taps, 128)
    assert (istft(spectrum, taps, 128, 22050) - y).abs().max() < 1e-12
    counts = torch.tensor([50, 173])
    spectrum[0, :, 50:] = torch.nan
    ours = istft(spectrum, taps, 128, 22050, frame_counts=counts)
    alone = istft(spectrum[:1, :, :50], taps, 128, 50 * 128)
    assert torch.equal(ours[0, : 49 * 128], alone[0, : 49 * 128])
    assert ours.isfinite().all()
