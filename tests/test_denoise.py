import librosa
import numpy as np
import pytest
import torch
from contract import quietly

from audiotorch.audio import ReduceNoise
from audiotorch.audio.denoise import _percentile
from audiotorch.errors import ParameterError


def apply_noise_reduction(y: np.ndarray, noise_factor: float = 0.1) -> np.ndarray:
    """The article's function; nothing is subtracted where no frame lies below the percentile."""
    spectrum = librosa.stft(y)
    magnitude, phase = np.abs(spectrum), np.angle(spectrum)
    level = magnitude.mean(axis=0)
    quiet = level < np.percentile(level, 15)
    noise = magnitude[:, quiet].mean(axis=1, keepdims=True) if quiet.any() else 0.0
    cleaned = np.maximum(magnitude - noise_factor * noise, 0.01 * magnitude)
    return librosa.istft(cleaned * np.exp(1j * phase), length=len(y))


@pytest.mark.parametrize("noise_factor", [0.0, 0.1, 1.0, 3.0])
def test_equals_the_article_on_recordings(recordings, noise_factor):
    module = ReduceNoise(noise_factor)
    for recording in recordings:
        for dtype, limit in ((np.float32, 2e-6), (np.float64, 1e-12)):
            clip = recording.samples.astype(dtype)
            expected = quietly(lambda y, _: apply_noise_reduction(y, noise_factor), clip, 0)
            actual = module(torch.from_numpy(clip))[0].numpy()
            assert actual.dtype == dtype
            assert np.abs(actual - expected).max() <= limit, recording.name


def test_padded_clips_equal_the_article(recordings):
    some = [r.samples.astype(np.float32)[:60_000] for r in recordings]
    batch = torch.full((len(some), 70_000), torch.nan)
    for row, clip in zip(batch, some, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    lengths = torch.tensor([len(clip) for clip in some])
    out, same = ReduceNoise(1.0)(batch, lengths)
    assert torch.equal(same, lengths)
    for row, clip in zip(out, some, strict=True):
        expected = quietly(lambda y, _: apply_noise_reduction(y, 1.0), clip, 0)
        assert np.abs(row[: len(clip)].numpy() - expected).max() <= 2e-6
        assert not row[len(clip) :].any()


@pytest.mark.parametrize("n", [1, 2, 511, 512, 700, 2049])
def test_short_clips_equal_the_article(n):
    clip = torch.randn(n)
    expected = quietly(lambda y, _: apply_noise_reduction(y, 1.0), clip.numpy(), 0)
    np.testing.assert_allclose(ReduceNoise(1.0)(clip)[0], expected, atol=2e-6)


def test_hiss_is_lowered_and_the_tone_stays():
    time = torch.arange(44_100, dtype=torch.float64) / 22050
    tone = torch.where(time > 0.6, torch.sin(2 * torch.pi * 441 * time), 0.0)
    hiss = 0.01 * torch.randn(44_100, dtype=torch.float64)
    cleaned = ReduceNoise(1.0)(tone + hiss)[0]
    assert cleaned[2048:10_000].square().mean() < 0.4 * hiss[2048:10_000].square().mean()
    assert (cleaned - tone)[20_000:40_000].square().mean() < 1e-4


def test_without_a_quiet_frame_nothing_is_subtracted():
    # More than 15 % of the frames hold digital silence: none lies below the percentile, 0.
    clip = torch.randn(44_100)
    clip[:20_000] = 0.0
    torch.testing.assert_close(ReduceNoise(1.0)(clip)[0], clip, atol=1e-5, rtol=0)
    silent = torch.zeros(3, 5000)
    assert torch.equal(ReduceNoise(1.0)(silent)[0], silent)


def test_a_nan_stays_where_it_is_in_its_clip():
    clip = torch.randn(2, 44_100)
    clip[0, 30_000] = torch.nan
    cleaned = ReduceNoise(1.0)(clip)[0]
    assert cleaned[0].isnan().any()
    torch.testing.assert_close(cleaned[0, :20_000], clip[0, :20_000], atol=1e-5, rtol=0)
    torch.testing.assert_close(cleaned[1], ReduceNoise(1.0)(clip[1])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_percentile_equals_numpy(dtype):
    generator = torch.Generator().manual_seed(0)
    for n in [*range(1, 300), 1001, 4001]:
        level = torch.rand(1, n + 3, generator=generator, dtype=dtype)
        level[:, n:] = torch.inf
        ours = _percentile(level, torch.tensor([n]))[0].numpy()
        expected = np.percentile(level[0, :n].numpy(), 15)
        np.testing.assert_allclose(ours, expected, rtol=torch.finfo(dtype).eps * 2)
        np.testing.assert_array_equal(level[0].numpy() < ours, level[0].numpy() < expected)


def test_percentile_of_nan_is_nan():
    level = torch.rand(2, 30)
    level[0, 4] = torch.nan
    assert _percentile(level, torch.tensor([30, 30])).isnan().tolist() == [[True], [False]]


def test_gradient():
    clip = torch.randn(2, 1500, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([1500, 900])
    module = ReduceNoise(0.5)
    assert torch.autograd.gradcheck(lambda x: module(x, lengths)[0], clip, fast_mode=True)
    silent = torch.zeros(1, 3000, requires_grad=True)
    ReduceNoise()(silent)[0].sum().backward()
    assert silent.grad.isfinite().all()


@pytest.mark.parametrize("noise_factor", [-0.1, float("nan"), float("inf")])
def test_refuses(noise_factor):
    with pytest.raises(ParameterError, match=r"noise_factor=.*: must be at least 0, such as 0.1"):
        ReduceNoise(noise_factor)
