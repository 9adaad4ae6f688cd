import numpy as np
import pytest
import scipy.signal
import torch
import torchaudio

from audiotorch.audio import NormalizeLoudness
from audiotorch.audio.loudness import _k_weighting
from audiotorch.errors import ParameterError

# ITU-R BS.1770-5, tables 1 and 2: at 48 kHz.
SHELF = (
    [1.53512485958697, -2.69169618940638, 1.19839281085285],
    [1.0, -1.69065929318241, 0.73248077421585],
)
HIGH_PASS = ([1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621])


def loudness(y: np.ndarray, weighted: np.ndarray | None = None) -> float:
    """Integrated loudness of a mono clip at 48 kHz, from the standard; LUFS."""
    if weighted is None:
        weighted = scipy.signal.lfilter(*HIGH_PASS, scipy.signal.lfilter(*SHELF, y.astype(float)))
    starts = range(0, len(weighted) - 19_200 + 1, 4800)
    power = np.array([np.mean(weighted[start : start + 19_200] ** 2) for start in starts])
    level = -0.691 + 10 * np.log10(np.maximum(power, 1e-300))
    gated = level > -70
    if not gated.any():
        return -np.inf
    relative = -0.691 + 10 * np.log10(power[gated].mean()) - 10
    return -0.691 + 10 * np.log10(power[gated & (level > relative)].mean())


def measured(clip: torch.Tensor, rate: int) -> float:
    """What the module took the clip's loudness for, from the gain that it applied."""
    scaled, _ = NormalizeLoudness(rate, -23.0)(clip)
    place = int(clip.abs().argmax())
    return -23.0 - 20 * np.log10(float(scaled[place] / clip[place]))


def tone(seconds: float, level_db: float, rate: int = 48_000, frequency: float = 1000.0):
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return 10 ** (level_db / 20) * torch.sin(2 * torch.pi * frequency * time)


def test_equals_the_standard_on_recordings(recordings):
    for recording in recordings:
        if len(recording.samples) < 19_200:
            continue
        for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
            # Any recording serves as one at the rate of the standard's table.
            clip = torch.from_numpy(recording.samples).to(dtype)
            assert abs(measured(clip, 48_000) - loudness(recording.samples)) <= limit


def test_weighting_is_that_of_the_table():
    frequencies = np.arange(4801) * 2 * np.pi / 9600
    expected = scipy.signal.freqz(*SHELF, frequencies)[1]
    expected = expected * scipy.signal.freqz(*HIGH_PASS, frequencies)[1]
    assert np.abs(_k_weighting(48_000, 9600) - expected).max() < 1e-9


# Near half the rate the bilinear transform bends frequencies: how far from 48 kHz, dB.
RATES = [(8000, 0.25), (16_000, 0.07), (22_050, 0.04), (44_100, 0.002), (192_000, 0.01)]


@pytest.mark.parametrize(("rate", "limit_db"), RATES)
def test_weighting_at_other_rates_is_that_of_48_khz(rate, limit_db):
    heard = slice(20, min(rate // 4, 10_000))
    ours = np.abs(_k_weighting(rate, rate)[heard])
    expected = np.abs(_k_weighting(48_000, 48_000)[heard])
    assert np.abs(20 * np.log10(ours / expected)).max() < limit_db


@pytest.mark.parametrize(("rate", "limit_db"), [*RATES, (48_000, 0.0005)])
def test_a_full_scale_tone_has_minus_3_lufs(rate, limit_db):
    assert measured(tone(3, 0.0, rate, 997.0), rate) == pytest.approx(-3.01, abs=limit_db)


@pytest.mark.parametrize(
    "levels",
    [
        [(20, -23.0)],
        [(20, -33.0)],
        [(10, -36.0), (60, -23.0), (10, -36.0)],
        [(10, -72.0), (10, -36.0), (60, -23.0), (10, -36.0), (10, -72.0)],
        [(20, -26.0), (20.1, -20.0), (20, -26.0)],
    ],
)
def test_ebu_compliance_signals(levels):
    """EBU Tech 3341, cases 1 to 5: both gates; one channel of their two is 3.01 LU quieter."""
    clip = torch.cat([tone(seconds, level) for seconds, level in levels])
    expected = -33.0 if levels == [(20, -33.0)] else -23.0
    assert measured(clip, 48_000) == pytest.approx(expected - 3.01, abs=0.1)


def test_torchaudio_is_near_where_nothing_is_clipped():
    # Its filters' frequencies are rounded: no closer than this.
    clip = torch.cat([0.05 * torch.randn(96_000), 1e-3 * torch.randn(48_000)])
    expected = torchaudio.transforms.Loudness(48_000)(clip[None])
    assert measured(clip, 48_000) == pytest.approx(float(expected), abs=0.05)


@pytest.mark.parametrize("target_lufs", [-23.0, -16.0])
def test_reaches_its_target_clip_by_clip(target_lufs):
    clips = torch.stack([tone(5, -6.0), tone(5, -40.0), tone(5, -20.0)]).float()
    lengths = torch.tensor([240_000, 100_000, 48_000])
    scaled, same = NormalizeLoudness(48_000, target_lufs)(clips, lengths)
    assert torch.equal(same, lengths)
    for clip, n in zip(scaled, lengths.tolist(), strict=True):
        assert loudness(clip[:n].numpy()) == pytest.approx(target_lufs, abs=1e-4)
        assert not clip[n:].any()


@pytest.mark.parametrize("n", [1, 100, 5000, 19_199])
def test_a_short_clip_is_one_block(n):
    clip = torch.randn(n, dtype=torch.float64)
    weighted = scipy.signal.lfilter(*HIGH_PASS, scipy.signal.lfilter(*SHELF, clip.numpy()))
    expected = -0.691 + 10 * np.log10(np.mean(weighted**2))
    assert measured(clip, 48_000) == pytest.approx(expected, abs=1e-8)


def test_what_no_block_hears_stays_as_it_is():
    for clip in (torch.zeros(30_000), tone(2, -90.0), tone(0.1, -90.0)):
        assert torch.equal(NormalizeLoudness(48_000)(clip)[0], clip)


def test_gradient():
    clip = 0.3 * torch.randn(2, 2500, dtype=torch.float64)
    module, lengths = NormalizeLoudness(4000), torch.tensor([2500, 900])
    clip.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module(x, lengths)[0], clip, fast_mode=True)
    silent = torch.zeros(1, 3000, requires_grad=True)
    module(silent)[0].sum().backward()
    assert silent.grad.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": -8000}, "sample_rate=-8000: must be a positive whole number"),
        ({"sample_rate": 3000}, r"sample_rate=3000: must be at least 4000 Hz.*Normalize\("),
        ({"target_lufs": -70.0}, "target_lufs=-70.0: must be above -70 and at most 0 LUFS"),
        ({"target_lufs": 1.0}, "target_lufs=1.0: must be above -70"),
        ({"target_lufs": float("nan")}, "target_lufs=nan: must be above -70"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ParameterError, match=message):
        NormalizeLoudness(**{"sample_rate": 8000, **settings})
