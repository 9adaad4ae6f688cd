import warnings

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
from contract import peak_error, row_error

from audiotorch.errors import ParameterError
from audiotorch.features import (
    FEATURES,
    MFCC,
    Delta,
    MelSpectrogram,
    PowerToDB,
    Spectrogram,
)


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
    long = 66_000  # 129 frames
    noise = torch.from_numpy(np.resize(signals["noise"], long)).float()
    sine = torch.from_numpy(np.resize(signals["sine"], long)).float()
    assert not torch.equal(double(noise), single(noise))
    torch.testing.assert_close(single(noise), double(noise), atol=1e-5, rtol=1e-3)
    # Beside a tone most bins hold less than float32 would leave there: the tone's ends apart,
    # where all bins sound, every frame is transformed in float64.
    assert torch.equal(double(sine)[:, 3:-3], single(sine)[:, 3:-3])
    assert torch.equal(double(sine.double()), single(sine.double()))


def test_short_clips_are_taken_in_float64_whatever_lies_beside_them(signals):
    double, single = Spectrogram(), Spectrogram(single=True)
    clips = torch.from_numpy(np.stack([np.resize(signals["noise"], 66_000)] * 2)).float()
    clips[1, 65_000:] = 0.0  # 127 frames
    lengths = torch.tensor([66_000, 65_000])
    alone = double(clips[1:, :65_000])
    assert torch.equal(single(clips[1:, :65_000]), alone)
    together = single(clips, lengths)
    assert torch.equal(together[1, :, : alone.shape[2]], alone[0])
    assert not together[1, :, alone.shape[2] :].any()
    assert torch.equal(together[0], single(clips[0]))


def test_mel_is_taken_in_float32_only_where_that_does_not_show():
    """Faint noise far from a loud band: just above what decibels cut off."""
    size = 66_150
    generator = np.random.default_rng(0)
    sos = scipy.signal.butter(8, [3000, 5000], "bandpass", fs=22050, output="sos")
    band = scipy.signal.sosfilt(sos, generator.standard_normal(size))
    band = 0.5 * band + 1e-4 * generator.standard_normal(size)
    noise = 0.01 * generator.standard_normal(size)
    clips = np.stack([band, noise, noise]).astype(np.float32)
    lengths = torch.tensor([size, size, 22_050])
    db, mel = PowerToDB(), MelSpectrogram()
    answer = mel(as_tensor(clips), lengths)
    exact = MelSpectrogram(single=False)(as_tensor(clips), lengths)

    below = mel.source.source
    frames = below.frames(as_tensor(clips), lengths, double=False)
    rounded = mel.derive(below.power(frames, torch.complex64))
    expected = librosa.power_to_db(librosa.feature.melspectrogram(y=clips[0]))
    assert np.abs(db(rounded)[0].numpy() - expected).max() > 2e-3
    assert np.abs(db(answer)[0].numpy() - expected).max() <= 1e-3
    # Noise alone needs no float64, and gets none; a short clip gets nothing else.
    assert torch.equal(answer[1], rounded[1])
    assert not torch.equal(answer[1], exact[1])
    assert torch.equal(answer[2], exact[2])
    torch.testing.assert_close(mel(as_tensor(clips[2, :22_050])), exact[2, :, :44])
    # Beside a tone that no band holds, next to nothing is left.
    tone = 0.5 * np.sin(2 * np.pi * 8000 * np.arange(size) / 22050)
    limited = {"n_mels": 40, "fmin": 300.0, "fmax": 4000.0}
    expected = librosa.feature.melspectrogram(y=tone.astype(np.float32), **limited)
    ours = MelSpectrogram(**limited)(as_tensor(tone)).numpy()
    assert peak_error(ours, expected) <= 1e-5


@pytest.mark.parametrize("n_mels", [1, 15, 16, 40])
def test_bands_come_right_whatever_their_number(n_mels, signals):
    expected = librosa.feature.melspectrogram(y=signals["noise"], n_mels=n_mels)
    ours = MelSpectrogram(n_mels=n_mels)(as_tensor(signals["noise"], torch.float64))
    assert ours.shape == expected.shape
    assert peak_error(ours.numpy(), expected) <= 1e-7


@pytest.mark.parametrize("name", ["delta_mfcc", "delta2_mfcc"])
def test_deltas_of_a_steady_hum_are_librosas(name):
    """Far from 0 dB and all but constant: each step's rounding shows in its deltas."""
    hum = np.tile(1e-2 * np.random.default_rng(0).standard_normal(512), 60)
    hum += 3e-4 * np.random.default_rng(1).standard_normal(len(hum))
    waveform = hum.astype(np.float32)
    mfcc = librosa.feature.mfcc(y=waveform, n_mfcc=13)
    expected = librosa.feature.delta(mfcc, order=2 if name == "delta2_mfcc" else 1)
    clips = torch.zeros(2, len(waveform) + 4000)
    clips[1, : len(waveform)] = torch.from_numpy(waveform)
    lengths = torch.tensor([len(waveform) + 4000, len(waveform)])
    ours = FEATURES[name]()(clips, lengths)[1, :, : expected.shape[1]]
    assert row_error(ours.numpy(), expected) <= 1e-5
    by_formula = FEATURES[name](single=True)(torch.from_numpy(waveform))
    # The slope's are as near by the formula: its range is the wider one.
    share = 0.8 if name == "delta2_mfcc" else 1.0
    assert row_error(ours.numpy(), expected) <= share * row_error(by_formula.numpy(), expected)
    assert FEATURES[name]()(torch.zeros(1, 9000)).abs().max() <= 1e-10
    # A clip of fewer frames than the filter beside it is no reason to fail.
    assert FEATURES[name]()(clips, torch.tensor([2000, len(waveform)])).isfinite().all()
    alone = FEATURES[name]()(torch.from_numpy(waveform))
    torch.testing.assert_close(ours, alone, atol=1e-6, rtol=0)
