from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

from audiotorch.audio import RemoveSilence
from audiotorch.errors import ParameterError


def remove_silence(y: np.ndarray, sr: int, top_db: float = 20.0, pad_ms: float = 50) -> np.ndarray:
    """The article's function, but that pieces which overlap are merged, not repeated."""
    pad = int(sr * pad_ms / 1000)
    pieces: list[list[int]] = []
    for start, end in librosa.effects.split(y, top_db=top_db):
        start, end = max(0, start - pad), min(len(y), end + pad)
        if pieces and start <= pieces[-1][1]:
            pieces[-1][1] = max(pieces[-1][1], end)
        else:
            pieces.append([start, end])
    return np.concatenate([y[start:end] for start, end in pieces]) if pieces else y


def check(y: np.ndarray, sr: int, name: str = "", **settings) -> int:
    """Equal to the loop, sample by sample; returns how many samples were left out."""
    expected = remove_silence(y, sr, **settings)
    waveform, length = RemoveSilence(sr, **settings)(torch.from_numpy(y))
    assert int(length) == len(expected), f"{name}, {settings}"
    np.testing.assert_array_equal(waveform[: len(expected)], expected, err_msg=name)
    assert not waveform[len(expected) :].any()
    return len(y) - len(expected)


def clips(root: Path, pattern: str, step: int) -> list[tuple[str, np.ndarray, int]]:
    found = []
    for path in sorted(root.glob(pattern))[::step]:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        found.append((path.name, samples[:, 0].copy(), rate))
    return found


@pytest.mark.parametrize(
    ("pattern", "step"),
    [
        ("esc10/**/*.ogg", 4),
        ("fsdd/**/*.wav", 12),
        ("speech/**/*.wav", 1),
        ("heart_pascal_b/**/*.flac", 4),
        ("machine_sounds/**/*.flac", 2),
    ],
)
def test_equals_the_loop_on_recordings(data_root, pattern, step):
    n_cut = 0
    for name, y, rate in clips(data_root, pattern, step):
        for top_db in (20.0, 33.3):
            n_cut += check(y, rate, name, top_db=top_db) > 0
        n_cut += check(y, rate, name, top_db=3.0, pad_ms=7) > 0
    assert n_cut > 5


@pytest.mark.parametrize("pad_ms", [0, 1, 23.2, 50, 64, 100, 5000])
def test_any_padding_equals_the_loop(signals, pad_ms):
    generator = np.random.default_rng(1)
    bursts = np.zeros(60_000, np.float32)
    for start in (0, 6000, 7777, 20_000, 26_624, 59_000):
        bursts[start : start + 800] = generator.standard_normal(800)
    for rate in (8000, 22050, 192_000):
        for n in (60_000, 59_904, 59_905, 20_480):
            check(bursts[:n], rate, pad_ms=pad_ms)
        for name, signal in signals.items():
            check(signal.astype(np.float32), rate, name, pad_ms=pad_ms)
            check(signal, rate, name, pad_ms=pad_ms)


def test_quiet_and_silent_clips_stay_whole():
    quiet = 1e-6 * torch.randn(9000)
    quiet[:4000] = 0.0
    for clip in (torch.zeros(9000), quiet):
        same, length = RemoveSilence(8000)(clip)
        assert torch.equal(same, clip)
        assert int(length) == 9000
        check(clip.numpy(), 8000)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_clip_that_is_not_finite_stays_whole(value):
    waveform = torch.zeros(2, 20_000)
    waveform[:, 8000:9000] = 1.0
    waveform[0, 15_000] = value
    same, lengths = RemoveSilence(8000)(waveform)
    torch.testing.assert_close(same[0], waveform[0], equal_nan=True)
    assert lengths.tolist() == [20_000, RemoveSilence(8000)(waveform[1])[1].item()]


def test_padding_changes_nothing(data_root):
    some = clips(data_root, "fsdd/**/*.wav", 311)
    batch = torch.full((len(some), 20_000), torch.nan)
    for row, (_, y, _) in zip(batch, some, strict=True):
        row[: len(y)] = torch.from_numpy(y)
    lengths = torch.tensor([len(y) for _, y, _ in some])
    out, kept = RemoveSilence(8000)(batch, lengths)
    for row, n, (_, y, _) in zip(out, kept.tolist(), some, strict=True):
        np.testing.assert_array_equal(row[:n], remove_silence(y, 8000))
        assert not row[n:].any()


def test_gradients_go_to_what_is_kept():
    waveform = torch.zeros(9000)
    waveform[2000:4000] = torch.randn(2000)
    waveform.requires_grad_()
    out, length = RemoveSilence(8000)(waveform)
    (out * torch.arange(9000)).sum().backward()
    grad = waveform.grad
    assert int((grad != 0).sum()) == int(length) - 1
    np.testing.assert_array_equal(np.diff(grad[grad != 0]), 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": 0}, "sample_rate=0: must be a positive whole number"),
        ({"top_db": 0.0}, r"top_db=0.0: must be above 0 decibels, such as 20\.0"),
        ({"top_db": float("inf")}, "top_db=inf: must be above 0"),
        ({"pad_ms": -1}, "pad_ms=-1: must be at least 0 milliseconds, such as 50"),
        ({"pad_ms": float("nan")}, "pad_ms=nan: must be at least 0"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ParameterError, match=message):
        RemoveSilence(**{"sample_rate": 8000, **settings})
