import librosa
import numpy as np
import pytest
import scipy.fft
import torch

from audiotorch.errors import ParameterError
from audiotorch.features import filters

HZ = np.concatenate([[0.0, 1e-3, 999.999, 1000.0, 1000.001], np.linspace(1, 22050, 1000)])


@pytest.mark.parametrize("htk", [False, True])
def test_mel_scale_equals_librosa_and_inverts(htk):
    mels = filters.hz_to_mel(HZ, htk=htk)
    np.testing.assert_allclose(mels, librosa.hz_to_mel(HZ, htk=htk), rtol=1e-14, atol=1e-12)
    np.testing.assert_allclose(filters.mel_to_hz(mels, htk=htk), HZ, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(
        filters.mel_to_hz(mels, htk=htk), librosa.mel_to_hz(mels, htk=htk), rtol=1e-14, atol=1e-12
    )
    assert (np.diff(filters.hz_to_mel(np.sort(HZ), htk=htk)) >= 0).all()


def test_slaney_scale_is_linear_below_1_khz():
    np.testing.assert_allclose(
        filters.hz_to_mel(np.array([200.0, 1000.0, 6400.0])), [3.0, 15.0, 42.0], rtol=1e-14
    )


@pytest.mark.parametrize("htk", [False, True])
def test_mel_frequencies_equal_librosa(htk):
    ours = filters.mel_frequencies(42, 30.0, 9000.0, htk=htk)
    expected = librosa.mel_frequencies(n_mels=42, fmin=30.0, fmax=9000.0, htk=htk)
    np.testing.assert_allclose(ours, expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "settings"),
    [
        (22050, 2048, 128, {}),
        (8000, 2048, 128, {}),
        (44100, 2048, 64, {}),
        (16000, 512, 40, {"fmin": 60.0, "fmax": 7600.0}),
        (22050, 1024, 40, {"htk": True, "norm": None}),
        (22050, 1000, 20, {"htk": True}),
        (22050, 2048, 40, {"norm": None}),
    ],
)
def test_mel_bank_equals_librosa_exactly(rate, n_fft, n_mels, settings):
    bank = filters.mel_bank(rate, n_fft, n_mels, **settings)
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, **settings)
    assert bank.dtype == torch.float32
    np.testing.assert_array_equal(bank.numpy(), expected)
    # float32 numbers are float64 numbers too: in float64 the two agree as exactly.
    np.testing.assert_array_equal(bank.double().numpy(), expected.astype(np.float64))


def test_slaney_bands_have_unit_area():
    bank = filters.mel_bank(22050, 1 << 16, 40)
    area = bank.double().sum(dim=1) * 22050 / (1 << 16)
    torch.testing.assert_close(area, torch.ones(40, dtype=torch.float64), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["hann", "hamming", "blackman"])
@pytest.mark.parametrize("win_length", [1, 400, 1023, 1024])
def test_window_equals_librosa(name, win_length):
    expected = librosa.util.pad_center(
        librosa.filters.get_window(name, win_length, fftbins=True), size=1024
    )
    window = filters.window(name, win_length, 1024)
    assert window.dtype == torch.float64
    np.testing.assert_array_equal(window.numpy(), expected)


@pytest.mark.parametrize("norm", ["ortho", None])
@pytest.mark.parametrize("dct_type", [1, 2, 3, 4])
def test_dct_matrix_equals_scipy(dct_type, norm):
    x = np.random.default_rng(0).standard_normal((40, 7))
    expected = scipy.fft.dct(x, type=dct_type, norm=norm, axis=0)[:13]
    ours = filters.dct_matrix(13, 40, dct_type=dct_type, norm=norm).numpy() @ x
    np.testing.assert_allclose(ours, expected, atol=1e-13)


def test_orthonormal_dct_keeps_lengths():
    matrix = filters.dct_matrix(40, 40)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(40, dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: filters.window("hann", 0, 64), r"win_length=0: must lie in 1 to n_fft=64"),
        (lambda: filters.window("hann", 65, 64), r"win_length=65: must lie in 1 to n_fft=64"),
        (lambda: filters.window("none", 64, 64), r"window='none': scipy.signal.get_window says"),
        (lambda: filters.mel_bank(8000, 64, 4, fmax=4001.0), r"fmax=4001\.0: need .* 4000\.0 Hz"),
        (lambda: filters.mel_bank(8000, 64, 40), r"n_mels=40: \d+ bands hold no FFT bin"),
        (lambda: filters.dct_matrix(5, 4), r"n_mfcc=5: must lie in 1 to n_mels=4"),
        (lambda: filters.dct_matrix(2, 4, dct_type=0), r"dct_type=0: must be 1, 2, 3 or 4"),
        (lambda: filters.dct_matrix(2, 4, norm="unit"), r"dct norm='unit': must be"),
    ],
)
def test_wrong_settings_are_refused(call, message):
    with pytest.raises(ParameterError, match=message):
        call()
