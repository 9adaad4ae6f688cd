import math

import pytest
import torch
from torch import Tensor

from audiotorch.features import TextureStatistics

RATE = 22050
N_BANDS, N_OCTAVES = 16, 7


def noise(seconds: float, rate_hz: float = 0.0) -> Tensor:
    """White noise, its level swinging by 12 dB at a rate."""
    n = int(seconds * RATE)
    swing_db = 6 * torch.sin(2 * math.pi * rate_hz * torch.arange(n) / RATE)
    generator = torch.Generator().manual_seed(3)
    return 0.1 * torch.randn(n, generator=generator) * 10 ** (swing_db / 20)


def parts(waveform: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour `(3, mels)`, octaves `(bands, octaves)`, level and crest `(bands,)` of one clip."""
    vector = TextureStatistics()(waveform[None])[0]
    colour = vector[: 3 * 64].reshape(3, 64)
    swings = vector[3 * 64 :].reshape(N_BANDS, N_OCTAVES + 2)
    return colour, swings[:, :N_OCTAVES], swings[:, N_OCTAVES], swings[:, N_OCTAVES + 1]


@pytest.mark.parametrize("seconds", [3.0, 5.0, 12.3])
def test_a_rotor_has_a_line_where_noise_has_none(seconds):
    _, still, _, no_line = parts(noise(seconds))
    _, octaves, _, line = parts(noise(seconds, rate_hz=15.0))
    assert (line > no_line + 1).all()
    # 15 Hz is 44 swings a window: the octave of bins 32 to 63.
    raised = (octaves - still).mean(dim=0)
    assert raised.argmax() == 5
    assert raised[5] > 1


def test_a_slow_swing_shows_in_its_octave_and_is_no_line():
    _, still, level, no_line = parts(noise(6.0))
    _, octaves, higher, line = parts(noise(6.0, rate_hz=2.0))
    assert (octaves - still).mean(dim=0).argmax() == 2  # 2 Hz is 6 swings a window: bins 4 to 7
    assert higher.mean() > level.mean()
    assert (line - no_line).abs().max() < 0.5


def test_the_level_of_the_recording_is_out():
    clip = torch.stack([noise(2.0, 7.0), 0.05 * noise(2.0, 7.0)])
    loud, quiet = TextureStatistics()(clip)
    torch.testing.assert_close(quiet, loud, atol=1e-5, rtol=0)


@pytest.mark.parametrize("start", [0.3, 2.0, 4.2])
def test_no_part_of_a_clip_is_left_out(start):
    """Half a second of a rotor in five seconds of noise: near the beginning, within, at the end."""
    clip = noise(5.0)
    with_rotor = clip.clone()
    span = slice(int(start * RATE), int((start + 0.5) * RATE))
    with_rotor[span] = noise(5.0, rate_hz=15.0)[span]
    _, octaves, _, _ = parts(clip)
    _, changed, _, _ = parts(with_rotor)
    assert (changed - octaves).mean(dim=0).argmax() == 5
    assert (changed - octaves).mean(dim=0)[5] > 0.05


def test_noise_is_the_same_however_long():
    _, short, level, crest = parts(noise(5.0))
    _, long, level_of_long, crest_of_long = parts(noise(40.0))
    assert abs((crest_of_long - crest).mean()) < 0.15
    assert abs((level_of_long - level).mean()) < 0.15
    assert (long - short).mean(dim=0)[1:].abs().max() < 0.3


@pytest.mark.parametrize("samples", [1, 255, 257, 20000, 256 * 255, 256 * 255 + 1, 256 * 383])
def test_clips_of_any_length_give_finite_numbers(samples):
    module = TextureStatistics()
    vector = module(torch.randn(2, samples), torch.tensor([samples, 1 + samples // 2]))
    assert vector.isfinite().all()
    assert list(vector.shape[1:]) == module.output_shape == [336]


def test_silence_and_a_click_give_finite_numbers():
    clip = torch.zeros(2, RATE)
    clip[1, 700] = 1.0
    assert TextureStatistics()(clip).isfinite().all()
