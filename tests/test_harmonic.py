import librosa
import numpy as np
import pytest
import torch
from contract import deviation, peak_error, quietly, scripted
from rows_harmonic import Both, hpss_of, ratio_of, relative_error

from audiotorch.features import HPSS, Harmonic, HarmonicRatio
from audiotorch.features.harmonic import Separation
from audiotorch.features.rounding import is_faint

RATE = 22050
TIME = np.arange(RATE) / RATE
SINE = 0.5 * np.sin(2 * np.pi * 440.0 * TIME)
CLICKS = np.where(np.arange(RATE) % 4410 == 2205, 1.0, 0.0)
NOISE = 0.1 * np.random.default_rng(3).standard_normal(RATE)


def as_batch(*clips: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(np.stack(clips)).to(dtype)


def test_a_tone_is_harmonic_and_clicks_are_percussive():
    ratio = HarmonicRatio()(as_batch(SINE, CLICKS, SINE + CLICKS))
    assert ratio[0] > 0.98
    assert ratio[1] < 1e-6
    both = as_batch(SINE + CLICKS)
    harmonic, percussive = HPSS()(both)
    middle = slice(4096, -4096)
    tone, clicks = as_batch(SINE)[:, middle], as_batch(CLICKS)[:, middle]
    assert (harmonic[:, middle] - tone).square().mean() < 0.01 * tone.square().mean()
    assert (percussive[:, middle] - clicks).square().mean() < 0.2 * clicks.square().mean()


def test_parts_sum_to_the_clip_up_to_its_end():
    y = as_batch(NOISE, SINE)
    lengths = torch.tensor([20_001, RATE])
    harmonic, percussive = HPSS()(y, lengths)
    assert (harmonic + percussive - y)[0, :20_001].abs().max() < 1e-6
    assert (harmonic + percussive - y)[1].abs().max() < 1e-6
    assert not harmonic[0, 20_001:].any()
    assert not percussive[0, 20_001:].any()
    # With margins, the residual is in neither part.
    harmonic, percussive = HPSS(margin=3.0)(y)
    residual = y - harmonic - percussive
    assert residual[0].square().mean() > 0.1 * y[0].square().mean()


def test_louder_changes_nothing_else():
    y = as_batch(NOISE + SINE)
    separate = Both(HPSS(power=4.0))
    for gain in (2.0**-60, 2.0**40):
        assert deviation(separate(y * gain), separate(y) * gain) <= 1e-6


def test_harmonic_is_the_first_part():
    y = as_batch(NOISE + SINE)
    assert torch.equal(Harmonic(margin=2.0)(y), HPSS(margin=2.0)(y)[0])
    assert Harmonic().compute(y).shape == y.shape


def interrupted(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Two sounds, and between them digital silence for longer than any filter of chroma."""
    clip = np.concatenate((SINE + NOISE, np.zeros(5 * RATE), NOISE))
    return torch.from_numpy(clip).to(dtype)


SETTINGS_OF_SILENCE = [
    {},
    {"n_fft": 1024, "hop_length": 300, "win_length": 900},
    {"margin": 2.0, "pad_mode": "reflect"},
    {"center": False},
]


@pytest.mark.parametrize("settings", SETTINGS_OF_SILENCE, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_beside_silence_librosa_is_met_to_the_last_bit(settings, dtype):
    clip = interrupted(dtype)
    expected = librosa.effects.harmonic(clip.numpy(), **settings)
    assert expected[RATE : RATE + 500].any()
    assert np.array_equal(Harmonic(**settings)(clip).numpy(), expected)


def test_beside_silence_padding_changes_nothing():
    clips = [interrupted(), interrupted()[: 3 * RATE], as_batch(SINE)[0], torch.zeros(0)]
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    # Samples past a clip's end count for nothing, whatever they are.
    batch[1, 3 * RATE :] = 1.0
    kept = batch.clone()
    together = Harmonic()(batch, lengths)
    assert torch.equal(batch, kept)
    for clip, own in zip(clips[:2], together, strict=False):
        assert torch.equal(own[: len(clip)], Harmonic()(clip))
        assert not own[len(clip) :].any()


def test_only_silence_beside_a_sound_is_faint():
    silence, sound, both = torch.zeros(4, 6), torch.ones(4, 6), torch.ones(4, 6)
    both[:, 4:] = 2.0**-18
    batch = torch.stack((silence, sound, both))
    assert is_faint(batch, None).tolist() == [False, False, True]
    assert is_faint(batch, torch.tensor([6, 6, 4])).tolist() == [False, False, False]
    assert is_faint(batch, torch.tensor([0, 0, 5])).tolist() == [False, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silence_gives_zeros(dtype):
    silence = torch.zeros(1, 5000, dtype=dtype)
    for settings in ({}, {"margin": 2.0}, {"power": float("inf")}):
        assert not Both(HPSS(**settings))(silence).any()
        assert HarmonicRatio(**settings)(silence).item() == 0.0


@pytest.mark.parametrize("settings", [{}, {"margin": (1.0, 3.0)}, {"power": 1.0}, {"power": 4.0}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_finite_at_silence(settings, dtype):
    y = torch.zeros(3, 6000, dtype=dtype)
    y[1, 3000] = 1.0
    y[2, 3000:] = torch.randn(3000, dtype=dtype)
    y.requires_grad_()
    Both(HPSS(**settings))(y).square().sum().backward()
    assert y.grad.isfinite().all()
    assert y.grad[2].any()


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("n", [1, 700, 1100, 2048, 2049, 4608])
def test_short_clips_equal_librosa(n, rate):
    # Two and three frames among them, for which librosa's own answer is whatever lies in memory.
    separate = Both(HPSS(rate))
    square = np.where(np.arange(n) % 50 < 25, 1.0, -1.0)
    click = np.where(np.arange(n) == n // 2, 1.0, 0.0)
    for y in (NOISE[:n], square, click, np.full(n, 0.25), SINE[:n]):
        expected = quietly(lambda y, rate: hpss_of(y), y, rate)
        for dtype, limit in ((torch.float64, 1e-7), (torch.float32, 1e-5)):
            ours = separate(as_batch(y, dtype=dtype))[0].double().numpy()
            assert peak_error(ours, expected) <= limit


def test_the_reference_is_librosa():
    for y in (NOISE, SINE, CLICKS):
        assert peak_error(hpss_of(y), np.stack(librosa.effects.hpss(y))) <= 1e-14


def test_ratio_of_short_and_quiet_clips():
    for y in (NOISE[:5000], 1e-4 * SINE, SINE + CLICKS):
        ours = HarmonicRatio()(as_batch(y))[0].numpy()
        assert relative_error(ours, ratio_of(y.astype(np.float32).astype(float))) <= 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"margin": (1.0, 5.0)},
        {"margin": 2.0, "power": 1.0},
        {"power": float("inf")},
        {"kernel_size": (17, 7), "power": 3.5},
    ],
)
def test_masks_equal_librosa_at_each_clips_own_end(settings):
    magnitude = torch.rand(3, 129, 80).square()
    magnitude[0, 20:60] = 0.0
    magnitude[1, :, 10:60] = 0.0
    magnitude[2, 40, 40] = 1e30
    counts = torch.tensor([80, 64, 17])
    separation = Separation(n_fft=256, hop_length=64, **settings)
    masks = torch.stack(separation.masks(magnitude, counts), dim=1)
    medians = torch.stack(separation.medians(magnitude, counts), dim=1)
    sizes = settings.get("kernel_size", (31, 31))
    for clip, mask, median, count in zip(magnitude, masks, medians, counts, strict=True):
        own = clip[:, :count].numpy()
        expected = np.stack(librosa.decompose.hpss(own, mask=True, **settings))
        assert np.abs(mask[..., :count].numpy() - expected).max() <= 1e-6
        # The medians are bit-exact.
        for found, size in zip(median, ((1, sizes[0]), (sizes[1], 1)), strict=True):
            filtered = librosa.decompose.median_filter(own, size=size, mode="reflect")
            assert np.array_equal(found[:, :count].numpy(), filtered)


def test_scripted_keeps_both_parts():
    y = as_batch(NOISE, SINE)
    hpss = HPSS()
    for ours, expected in zip(scripted(hpss)(y), hpss(y), strict=True):
        assert deviation(ours, expected) <= 1e-6


def test_chunks_and_threads_give_the_same():
    y = as_batch(*[np.roll(NOISE + SINE, shift) for shift in range(14)])
    whole = Separation().compute(y)
    assert deviation(Separation()(y), whole) <= 1e-6
    assert torch.equal(HPSS()(y)[1], Separation()(y)[:, 1])
