"""The constant-Q transforms, the tuning estimate and the decimation below them."""

import librosa
import numpy as np
import pytest
import torch
from contract import exported, peak_error, quietly, scripted
from rows_constantq import centred_frames
from torch import nn

from audiotorch.errors import ParameterError
from audiotorch.features import CQT, VQT, Tuning
from audiotorch.features.decimate import Decimate
from audiotorch.features.tuning import PitchHistogram

C1 = float(librosa.note_to_hz("C1"))


def noise(size: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(size).standard_normal(size).astype(dtype)


def tone(hz: float, rate: int = 22050, seconds: float = 1.0) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hz * torch.arange(int(rate * seconds)).double() / rate)


class Louder(nn.Module):
    """A stage that doubles the waveform."""

    def compute(self, waveform: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        return 2.0 * waveform


@pytest.mark.parametrize("index", range(0, 84, 9))
def test_tone_peaks_in_its_own_bin(index):
    cqt = CQT()(tone(C1 * 2 ** (index / 12)))
    assert (cqt[:, 10:-10].argmax(dim=0) == index).all()


def test_twice_as_loud_is_twice_as_much():
    waveform = torch.from_numpy(noise(9000))
    assert torch.allclose(CQT()(2 * waveform), 2 * CQT()(waveform), rtol=1e-12)


def test_an_octave_up_is_an_octave_of_bins_up():
    low, high = CQT(n_bins=72)(tone(110.0)), CQT(n_bins=72, fmin=2 * C1)(tone(220.0))
    # Filters are half as long there, so that their magnitude falls by the root of two.
    middle = slice(15, -15)
    assert torch.allclose(low[:, middle], high[:, middle] * 2**0.5, atol=3e-3 * float(low.max()))


GRID = [
    (CQT, {"hop_length": 441}),
    (CQT, {"hop_length": 260, "scale": False}),
    (CQT, {"hop_length": 1024, "norm": None}),
    (CQT, {"sparsity": 0.0, "window": "hamming", "n_bins": 80}),
    (CQT, {"norm": np.inf, "filter_scale": 0.5, "pad_mode": "edge"}),
    (CQT, {"norm": 2.0, "tuning": 0.3, "fmin": 55.0, "n_bins": 60, "pad_mode": "reflect"}),
    (CQT, {"n_bins": 1}),
    (CQT, {"n_bins": 100, "bins_per_octave": 24}),
    (CQT, {"sample_rate": 44100}),
    (CQT, {"sample_rate": 96000, "scale": False}),
    (CQT, {"n_bins": 24, "hop_length": 4096}),
    (CQT, {"sample_rate": 8000, "n_bins": 72}),
    (VQT, {"gamma": 20.0}),
    (VQT, {"gamma": 0.0, "sample_rate": 44100}),
    (VQT, {"intervals": [1.0, 1.2, 1.5, 1.75], "n_bins": 25}),
    (VQT, {"bins_per_octave": 24, "n_bins": 120, "scale": False}),
]


@pytest.mark.parametrize(("build", "settings"), GRID, ids=str)
def test_settings_equal_librosa(build, settings):
    rate = settings.get("sample_rate", 22050)
    given = {name: value for name, value in settings.items() if name != "sample_rate"}
    reference = librosa.cqt if build is CQT else librosa.vqt
    module = build(**settings)
    # librosa mirrors what the last frames hold, which of 2047 samples is less than half a window.
    for size in (12345,) if settings.get("pad_mode") == "reflect" else (12345, 2047):
        clip = noise(size)
        expected = np.abs(quietly(lambda y, sr: reference(y, sr=sr, **given), clip, rate))
        ours = module(torch.from_numpy(clip))
        assert ours.shape == expected.shape
        assert int(module.frame_counts(torch.tensor(size))) == expected.shape[1]
        assert peak_error(ours.numpy(), expected) <= 3e-6


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("size", [4, 700, 2048, 2049, 4608])
def test_short_clips_equal_librosa(rate, size):
    module = CQT(rate, n_bins=72)
    square = np.sign(np.sin(2 * np.pi * 100.0 * (np.arange(size) + 0.5) / rate))
    click = np.zeros(size)
    click[size // 2] = 1.0
    for clip in (noise(size), square, click, np.full(size, 0.5)):
        expected = quietly(lambda y, sr: np.abs(librosa.cqt(y, sr=sr, n_bins=72)), clip, rate)
        ours = module(torch.from_numpy(clip)).numpy()
        assert ours.shape == expected.shape
        assert peak_error(ours, expected) <= 1e-5
    assert not module(torch.zeros(size)).any()


def test_padded_clips_where_halvings_come_first():
    module = CQT(44100, n_bins=72)
    sizes = torch.tensor([9001, 2047, 1])
    waveform = torch.zeros(3, 9001)
    for clip, size in zip(waveform, sizes, strict=True):
        clip[:size] = torch.from_numpy(noise(int(size), np.float32))
    together = module(waveform, sizes)
    for clip, answer, size in zip(waveform, together, sizes, strict=True):
        alone = module(clip[:size])
        count = int(module.frame_counts(size))
        assert alone.shape[1] == count
        assert torch.allclose(answer[:, :count], alone, atol=1e-6 * float(alone.max()))
        assert not answer[:, count:].any()
    assert torch.allclose(scripted(module)(waveform, sizes), together, atol=1e-6)


def test_export_where_halvings_come_first():
    module = CQT(44100, hop_length=8, fmin=200.0, n_bins=12)
    assert module.factor == 8
    program = exported(module, torch.randn(2, 3000), torch.tensor([3000, 1999]))
    waveform, lengths = torch.randn(3, 5001), torch.tensor([5001, 4000, 1])
    assert torch.allclose(program(waveform, lengths), module(waveform, lengths), atol=1e-6)


def test_each_clip_has_its_own_tuning():
    module = CQT(tuning=None)
    waveform = torch.stack([tone(440.0), tone(440.0 * 2 ** (0.3 / 12))])
    tunings = [float(librosa.estimate_tuning(y=clip.numpy())) for clip in waveform]
    assert tunings[0] != tunings[1]
    for clip, answer, tuning in zip(waveform, module(waveform), tunings, strict=True):
        assert torch.allclose(answer, CQT(tuning=tuning)(clip), atol=1e-5)


def test_silence_has_a_gradient_of_zero():
    waveform = torch.zeros(4000, requires_grad=True)
    CQT()(waveform).sum().backward()
    assert waveform.grad is not None
    assert not waveform.grad.any()


def test_another_stage_can_give_the_waveform():
    waveform = torch.from_numpy(noise(6000))
    for settings in ({}, {"tuning": None}):
        louder = CQT(source=Louder(), **settings)(waveform)
        assert torch.allclose(louder, CQT(**settings)(2 * waveform))


def test_octaves_of_equal_filters_share_one_bank():
    assert [bank.n_octaves for bank in CQT().banks] == [7]
    assert len(VQT().banks) == 7
    tuned = CQT(n_bins=252, bins_per_octave=36, tuning=None)
    assert sum(buffer.nbytes for buffer in tuned.buffers()) < 4e6


def test_no_sample_is_refused():
    for module in (CQT(), Tuning()):
        with pytest.raises(ParameterError, match="has 0 samples, needs at least 1"):
            module(torch.zeros(2, 0))


@pytest.mark.parametrize("factor", [2, 4, 8, 32])
def test_decimation_equals_librosa(factor):
    module = Decimate(factor)
    for size in (1, factor - 1, 2049, 20000):
        clip = noise(size)
        expected = librosa.resample(clip, orig_sr=factor, target_sr=1, res_type="soxr_hq")
        padded = torch.from_numpy(np.pad(clip, (0, 77)))[None]
        waveform, lengths = module(padded, torch.tensor([size]))
        assert lengths.tolist() == [len(expected)]
        for ours in (waveform[0, : len(expected)], module(torch.from_numpy(clip)[None])[0][0]):
            assert np.abs(ours.numpy() - expected).max() <= 3e-7 * np.abs(clip).max()
        assert not waveform[0, len(expected) :].any()


def test_decimation_refuses_other_factors():
    for factor in (0, 1, 3):
        with pytest.raises(ParameterError, match=rf"factor={factor}: must be a power of 2"):
            Decimate(factor)


@pytest.mark.parametrize("shift", [-0.4, -0.1, 0.0, 0.25])
def test_tuning_of_a_scale_is_its_shift(shift):
    notes = [tone(440.0 * 2 ** ((step + shift) / 12), seconds=0.2) for step in range(12, 30)]
    assert abs(float(Tuning()(torch.cat(notes))) - shift) <= 0.011


def test_tuning_without_any_peak_is_zero():
    for clip in (torch.zeros(5000), torch.full((5000,), 0.5), torch.zeros(1)):
        assert Tuning()(clip).tolist() == [0.0]


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("steps", [12, 36])
def test_tuning_equals_librosa(rate, steps, recordings):
    settings = {"bins_per_octave": steps, "threshold": 0.2, "fmin": 100.0}
    module = Tuning(rate, **settings)
    for recording in recordings[::3]:
        clip = recording.samples[:40000].astype(np.float32)
        # A pitch at the edge of two bins is in one or the other by the last bit of a logarithm,
        # which numpy takes otherwise on other processors: float64 then says which is right.
        single, double = (
            quietly(lambda y, sr: librosa.estimate_tuning(y=y, sr=sr, **settings), samples, rate)
            for samples in (clip, clip.astype(np.float64))
        )
        answer = float(module(torch.from_numpy(clip)))
        assert min(abs(answer - single), abs(answer - double)) <= 1e-6
        answer = float(module(torch.from_numpy(clip).double()))
        assert answer == pytest.approx(double, abs=1e-6)


def test_histogram_takes_an_odd_number_of_bins():
    for n_fft in (1023, 1024, 1026):
        histogram = PitchHistogram(8000, n_fft)
        power = np.random.default_rng(n_fft).random((1 + n_fft // 2, 40))
        expected = librosa.estimate_tuning(S=power, sr=8000, n_fft=n_fft)
        index = histogram(torch.from_numpy(power)[None])
        assert float(histogram.edges[index]) == pytest.approx(expected, abs=1e-9)


def test_frames_follow_the_hop():
    assert CQT()(torch.zeros(5, 4608)).shape == (5, 84, centred_frames(4608))
