"""Chroma, CENS and tonnetz: laws, banks and edges; the contract's rows are elsewhere."""

import librosa
import numpy as np
import pytest
import torch
from contract import peak_error, quietly
from test_constantq import Louder, noise, tone

from audiotorch.features import CQT, ChromaCENS, ChromaCQT, ChromaSTFT, Tonnetz, filters
from audiotorch.features.chroma import HarmonicTonnetz

KINDS = [ChromaSTFT, ChromaCQT, ChromaCENS]


@pytest.mark.parametrize("build", KINDS)
def test_each_note_has_its_row_in_every_octave(build):
    module = build()
    for step in range(0, 36, 5):
        chroma = module(tone(261.6256 * 2 ** (step / 12)))
        assert (chroma[:, 10:-10].argmax(dim=0) == step % 12).all()


@pytest.mark.parametrize("build", [*KINDS, Tonnetz])
def test_loudness_does_not_matter(build):
    waveform = torch.from_numpy(noise(9000))
    assert torch.allclose(build()(4 * waveform), build()(waveform), atol=1e-9)


@pytest.mark.parametrize(("build", "norm"), [(ChromaSTFT, 1.0), (ChromaCQT, 2.0), (ChromaCENS, 2)])
def test_frames_have_norm_one_and_silent_ones_zero(build, norm):
    waveform = torch.cat([torch.from_numpy(noise(16000)), torch.zeros(90000)])
    chroma = build(norm=norm)(torch.stack([waveform, torch.zeros_like(waveform)]))
    assert torch.allclose(chroma[0, :, :30].norm(p=norm, dim=0), torch.ones(30).double())
    assert not chroma[1].any()


def test_tonnetz_of_one_note_lies_on_three_circles():
    radii = Tonnetz().basis.unflatten(0, (3, 2)).norm(dim=1)
    expected = torch.tensor([1.0, 1.0, 0.5]).double()[:, None].expand(3, 12)
    assert torch.allclose(radii, expected)


def test_tonnetz_turns_by_a_fifth():
    basis = Tonnetz().basis
    turned = basis.roll(-7, dims=1)
    angle = torch.atan2(basis[0], basis[1]) - torch.atan2(turned[0], turned[1])
    # Seven semitones are one step of the circle of twelve fifths.
    assert torch.allclose(torch.cos(angle), torch.full((12,), np.cos(np.pi / 6)).double())


def test_tonnetz_of_all_notes_alike_is_the_centre():
    assert Tonnetz().basis.sum(dim=1).abs().max() < 1e-12


BANKS = [
    {"tuning": 0.0},
    {"tuning": 0.3, "n_chroma": 24},
    {"tuning": -0.5, "octwidth": None, "base_c": False},
    {"tuning": 0.49, "ctroct": 4.0, "n_chroma": 7},
]


@pytest.mark.parametrize("n_fft", [2048, 513])
@pytest.mark.parametrize("settings", BANKS, ids=str)
def test_spectral_bank_equals_librosa(n_fft, settings):
    expected = librosa.filters.chroma(sr=16000, n_fft=n_fft, **settings)
    module = ChromaSTFT(16000, n_fft, **settings)
    assert np.abs(module.bank[0].numpy() - expected).max() <= 6e-8
    tuning = torch.tensor([settings["tuning"]])
    single = module._bank(tuning, torch.float32)[0].numpy()
    assert np.abs(single - expected).max() <= 2e-6


@pytest.mark.parametrize(
    "settings",
    [{}, {"fmin": 55.0}, {"fmin": 440.0, "base_c": False}, {"window": [0.25, 0.5, 0.25]}],
    ids=str,
)
@pytest.mark.parametrize("n_chroma", [12, 36])
def test_constant_q_bank_equals_librosa(n_chroma, settings):
    given = dict(settings)
    if "window" in given:
        given["window"] = np.array(given["window"])
    expected = librosa.filters.cq_to_chroma(200, bins_per_octave=36, n_chroma=n_chroma, **given)
    ours = filters.cq_to_chroma(200, 36, n_chroma, **settings)
    assert np.array_equal(ours.numpy(), expected.astype(np.float32))


SETTINGS = [
    (ChromaSTFT, {"norm": None, "hop_length": 300, "win_length": 1200, "window": "hamming"}),
    (ChromaSTFT, {"norm": 1.0, "tuning": 0.1, "n_chroma": 24, "pad_mode": "reflect"}),
    (ChromaCQT, {"norm": 2.0, "threshold": 0.02, "n_octaves": 5, "fmin": 65.4}),
    (ChromaCQT, {"norm": None, "tuning": 0.1, "bins_per_octave": None, "threshold": None}),
    (ChromaCQT, {"window": [0.2, 0.6, 0.2], "n_chroma": 18, "hop_length": 256}),
    (ChromaCENS, {"win_len_smooth": None, "norm": 1.0}),
    (ChromaCENS, {"win_len_smooth": 10, "smoothing_window": "hamming"}),
    (Tonnetz, {"n_octaves": 6, "n_chroma": 36}),
]
REFERENCES = {
    ChromaSTFT: librosa.feature.chroma_stft,
    ChromaCQT: librosa.feature.chroma_cqt,
    ChromaCENS: librosa.feature.chroma_cens,
    Tonnetz: librosa.feature.tonnetz,
}


@pytest.mark.parametrize(("build", "settings"), SETTINGS, ids=str)
def test_settings_equal_librosa(build, settings):
    clip = noise(20000) + np.sin(np.arange(20000) / 7.0)
    given = {k: np.array(v) if isinstance(v, list) else v for k, v in settings.items()}
    expected = quietly(lambda y, sr: REFERENCES[build](y=y, sr=sr, **given), clip, 22050)
    ours = build(**settings)(torch.from_numpy(clip)).numpy()
    assert ours.shape == expected.shape
    assert peak_error(ours, expected) <= 2e-5


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("size", [700, 2048, 2049, 4608])
@pytest.mark.parametrize("build", [*KINDS, Tonnetz])
def test_short_clips_equal_librosa(build, size, rate):
    settings = {} if build is ChromaSTFT else {"n_octaves": 6}
    module = build(rate, **settings)
    square = np.sign(np.sin(2 * np.pi * 100.0 * (np.arange(size) + 0.5) / rate))
    for clip in (noise(size), square):
        expected = quietly(lambda y, sr: REFERENCES[build](y=y, sr=sr, **settings), clip, rate)
        ours = module(torch.from_numpy(clip)).numpy()
        assert ours.shape == expected.shape
        assert np.abs(ours - expected).max() <= 1e-4
    for clip in (torch.full((size,), 0.5), torch.eye(size)[size // 2]):
        assert module(clip).isfinite().all()


def test_tonnetz_of_silence_beside_a_sound_is_librosas_rounding():
    sound = noise(22050).astype(np.float32)
    clip = np.concatenate((sound, np.zeros(5 * 22050, np.float32), sound))
    expected = librosa.feature.tonnetz(y=librosa.effects.harmonic(clip), sr=22050)
    ours = HarmonicTonnetz()(torch.from_numpy(clip)).numpy()
    assert np.mean(np.abs(ours - expected) <= 1e-2) >= 0.999


@pytest.mark.parametrize("build", [ChromaSTFT, ChromaCQT, Tonnetz])
@pytest.mark.parametrize("norm", [None, 1.0, 2.0, np.inf])
def test_silence_has_a_finite_gradient(build, norm):
    waveform = torch.zeros(3000, requires_grad=True)
    build(norm=norm)(waveform).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.isfinite().all()


def test_all_stand_on_one_constant_q_transform():
    stages = [ChromaCQT().source, ChromaCENS().source.source, Tonnetz().source.source]
    assert all(type(stage) is CQT for stage in stages)
    waveform = torch.from_numpy(noise(6000))[None]
    first, *others = [stage.compute(waveform) for stage in stages]
    assert all(torch.equal(first, other) for other in others)
    tonnetz = Tonnetz()
    assert torch.equal(tonnetz.derive(tonnetz.source.derive(first)), tonnetz(waveform))


@pytest.mark.parametrize("build", [ChromaCQT, ChromaCENS, Tonnetz])
def test_another_stage_can_give_the_waveform(build):
    module = build(source=Louder())
    waveform = torch.from_numpy(noise(6000))
    assert torch.allclose(module(waveform), build()(2 * waveform), atol=1e-9)
    stage = module.source if build is ChromaCQT else module.source.source
    assert isinstance(stage.source, Louder)


def test_cens_smooths_up_to_the_clips_own_end():
    module = ChromaCENS(win_len_smooth=9)
    clip = torch.from_numpy(noise(9000))
    padded = torch.nn.functional.pad(clip, (0, 9000))[None]
    answer = module(padded, torch.tensor([9000]))[0]
    alone = module(clip)
    assert torch.allclose(answer[:, : alone.shape[1]], alone, atol=1e-9)
    assert not answer[:, alone.shape[1] :].any()
