import torch

from audiotorch.features import SoundProfile


def columns(waveform: torch.Tensor) -> dict[str, float]:
    module = SoundProfile()
    return dict(zip(module.names, module(waveform[None])[0].tolist(), strict=True))


def test_half_the_amplitude_is_6_db_less_in_every_level_and_nothing_else():
    clip = 0.1 * torch.randn(22050)
    loud, quiet = columns(clip), columns(0.5 * clip)
    for name, value in loud.items():
        moves = name.startswith(("level", "band_mean", "band_min", "band_max"))
        assert abs(value - quiet[name] - (6.0206 if moves else 0.0)) < 1e-3, name


def test_silence_and_a_click_give_finite_numbers():
    clip = torch.zeros(2, 22050)
    clip[1, 700] = 1.0
    assert SoundProfile()(clip).isfinite().all()
