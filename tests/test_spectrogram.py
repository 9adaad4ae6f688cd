import warnings

import librosa
import numpy as np
import pytest
import torch
from contract import peak_error, row_error

from audiotorch.errors import ParameterError
from audiotorch.features import MFCC, Delta, MelSpectrogram, PowerToDB, Spectrogram


def as_tensor(signal: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(signal).to(dtype)


@pytest.mark.parametrize("build", [Spectrogram, MelSpectrogram])
def test_twice_the_amplitude_is_6_02_db_more(build, signals):
    noise = as_tensor(signals["noise"])
    db = PowerToDB(top_db=None)
    louder = db(build()(2 * noise)) - db(build()(noise))
    torch.testing.assert_close(louder, torch.full_like(louder, 6.0206), atol=1e-4, rtol=0)


def test_twice_the_amplitude_moves_only_the_first_coefficient(signals):
    noise = as_tensor(signals["noise"], torch.float64)
    change = MFCC()(2 * noise) - MFCC()(noise)
    # The orthonormal cosine transform of a constant over 128 bands.
    first = torch.full_like(change[0], 20 * np.log10(2) * np.sqrt(128))
    torch.testing.assert_close(change[0], first)
    assert change[1:].abs().max() < 1e-9


@pytest.mark.parametrize("hz", [100.0, 440.0, 1000.0, 5512.5, 10_000.0])
def test_sine_peaks_in_its_bin(hz):
    time = torch.arange(22050, dtype=torch.float64) / 22050
    specgram = Spectrogram()(torch.sin(2 * torch.pi * hz * time))
    inner = specgram[:, 3:-3]
    assert (inner.argmax(dim=0) == round(hz * 2048 / 22050)).all()


def test_energy_is_that_of_the_windowed_frames(signals):
    # Parseval, with the bins that the one-sided spectrum leaves out.
    noise = as_tensor(signals["noise"], torch.float64)
    power = Spectrogram(center=False)(noise)
    module = Spectrogram(center=False)
    energy = (noise.unfold(0, 2048, 512) * module.source.window).square().sum(dim=1)
    both_sides = 2 * power.sum(dim=0) - power[0] - power[-1]
    torch.testing.assert_close(both_sides / 2048, energy)


def test_magnitude_squared_is_power(signals):
    noise = as_tensor(signals["noise"])
    torch.testing.assert_close(Spectrogram(power=1.0)(noise).square(), Spectrogram()(noise))


def test_silence_is_at_the_floor():
    silence = torch.zeros(1, 22050)
    assert (Spectrogram()(silence) == 0).all()
    assert (PowerToDB()(MelSpectrogram()(silence)) == -100).all()
    mfcc = MFCC()(silence)
    torch.testing.assert_close(mfcc[0, 0], torch.full_like(mfcc[0, 0], -100 * np.sqrt(128)))
    assert mfcc[0, 1:].abs().max() < 1e-4


@pytest.mark.parametrize("n", [1, 511, 512, 513, 2048, 2049, 4608, 22050])
@pytest.mark.parametrize("hop_length", [512, 160])
def test_frame_counts(n, hop_length):
    module = Spectrogram(hop_length=hop_length)
    assert module(torch.zeros(n)).shape == (1025, 1 + n // hop_length)
    assert int(module.frame_counts(torch.tensor(n))) == 1 + n // hop_length


def test_frame_counts_without_centring():
    module = Spectrogram(center=False)
    counts = module.frame_counts(torch.tensor([0, 1, 2047, 2048, 2559, 2560]))
    assert counts.tolist() == [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize("order", [1, 2])
def test_delta_of_a_polynomial_is_its_derivative_at_every_frame(order):
    frames = torch.arange(20, dtype=torch.float64)
    feature = torch.stack([3 * frames**order - 7, -(frames**order) + 2 * frames])
    expected = torch.tensor([[3.0], [-1.0]]).double() * order
    if order == 1:
        expected[1] += 2.0
    delta = Delta(order)(feature)
    torch.testing.assert_close(delta, expected.expand(2, 20), atol=1e-11, rtol=0)


@pytest.mark.parametrize(("order", "width"), [(1, 3), (1, 5), (2, 5), (3, 9), (1, 21)])
@pytest.mark.parametrize("frames", [21, 22, 60])
def test_delta_equals_librosa_at_other_widths(order, width, frames):
    x = torch.randn(2, 4, frames, dtype=torch.float64)
    expected = librosa.feature.delta(x.numpy(), order=order, width=width)
    np.testing.assert_allclose(Delta(order, width)(x), expected, atol=1e-12)


def test_delta_of_a_constant_is_0_however_large():
    assert (Delta()(torch.full((3, 40), -1088.1495)) == 0).all()


def test_delta_says_how_many_frames_it_needs():
    with pytest.raises(ParameterError, match=r"has 8 frames, Delta needs at least width=9; pad"):
        Delta()(torch.zeros(1, 3, 8))


def test_loud_clip_leaves_the_quiet_one_its_range(signals):
    quiet, loud = as_tensor(1e-3 * signals["quiet noise"]), as_tensor(signals["clicks"])
    both = MFCC()(torch.stack([quiet, loud]))
    expected = librosa.feature.mfcc(y=quiet.double().numpy())
    assert np.abs(both[0].double().numpy() - expected).max() <= 2e-3


def test_why_not_torchaudios_transforms(signals):
    """Evidence for own code: torchaudio misses the tolerances that the contract holds us to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*deprecated", module="torchaudio")
        import torchaudio.transforms as reference

        mel = {"n_fft": 2048, "hop_length": 512, "n_mels": 128, "pad_mode": "constant"}
        mel.update(norm="slaney", mel_scale="slaney")
        mfcc = reference.MFCC(22050, n_mfcc=20, melkwargs=mel)
        deltas = reference.ComputeDeltas(win_length=9)
    clips = np.stack([1e-3 * signals["quiet noise"], signals["clicks"]])
    theirs = mfcc(as_tensor(clips)).double().numpy()
    ours = MFCC()(as_tensor(clips)).double().numpy()
    expected = np.stack([librosa.feature.mfcc(y=clip) for clip in clips])
    assert np.abs(ours - expected).max() <= 2e-3
    # The loud clip's maximum sets the floor of the quiet one.
    assert np.abs(theirs - expected)[0].max() > 10.0

    feature = expected[1].astype(np.float32)
    slope = librosa.feature.delta(feature.astype(np.float64))
    assert row_error(Delta()(torch.from_numpy(feature)).numpy(), slope) <= 1e-5
    repeated_ends = deltas(torch.from_numpy(feature)).numpy()
    assert row_error(repeated_ends, slope) > 0.01
    assert peak_error(repeated_ends[:, 4:-4], slope[:, 4:-4]) < 1e-4
    curve = librosa.feature.delta(feature.astype(np.float64), order=2)
    assert row_error(deltas(deltas(torch.from_numpy(feature))).numpy(), curve) > 0.01


def test_float32_is_taken_only_where_its_rounding_does_not_show(signals):
    double, single = Spectrogram(), Spectrogram(single=True)
    noise, sine = as_tensor(signals["noise"]), as_tensor(signals["sine"])
    assert not torch.equal(double(noise), single(noise))
    torch.testing.assert_close(single(noise), double(noise), atol=1e-5, rtol=1e-3)
    # Beside a tone most bins hold less than float32 would leave there: the tone's ends apart,
    # where all bins sound, every frame is transformed in float64.
    assert torch.equal(double(sine)[:, 3:-3], single(sine)[:, 3:-3])
    assert torch.equal(double(sine.double()), single(sine.double()))
