import torch
from torch import Tensor

from audiotorch.features import EnvelopeRhythm

RATE = 4000


def beats(period: float, seconds: float, noise: float = 1e-3) -> Tensor:
    """A thump of 60 ms at 150 Hz in each period."""
    time = torch.arange(round(seconds * RATE)) / RATE
    phase = time % period
    thump = (phase < 0.06) * torch.sin(2 * torch.pi * 150 * phase)
    return 0.3 * thump + noise * torch.randn(len(time))


def test_the_highest_lag_is_the_period():
    module = EnvelopeRhythm(RATE, lag_step=1)
    rhythm = module(beats(0.8, 8.0)[None])[0]
    best = rhythm[20:].argmax() + 20
    assert module.names[best] == "lag_0.800"
    assert rhythm[best] > 0.8  # a tenth of the frames have no partner one period later


def test_neither_level_nor_length_plays_a_part():
    module = EnvelopeRhythm(RATE)
    short, long = beats(0.7, 8.0), beats(0.7, 24.0)
    rhythm = module(short[None])[0]
    torch.testing.assert_close(module(0.1 * short[None])[0], rhythm, atol=1e-4, rtol=0)
    assert (module(long[None])[0] - rhythm).abs().max() < 0.15  # 1.2 s of 8 s have no partner


def test_a_murmur_that_fills_the_pauses_shows():
    module = EnvelopeRhythm(RATE)
    clear = module(beats(0.8, 10.0)[None])[0]
    filled = module(beats(0.8, 10.0, noise=0.2)[None])[0]
    assert (filled - clear).abs().max() > 0.2


def test_silence_and_one_sample_give_zeros():
    assert (EnvelopeRhythm()(torch.zeros(1, 9000)) == 0).all()
    assert (EnvelopeRhythm()(torch.ones(1, 1)) == 0).all()
