"""Onsets, tempo and beats: physical laws, the ends of short clips, and silence."""

import warnings

import librosa
import numpy as np
import pytest
import torch
from contract import quietly, scripted

from audiotorch.features import BeatTracker, OnsetStrength, Tempo, Tempogram

RATE = 22050
HOP = 512


def bpm_of(period: int, rate: int = RATE) -> float:
    return 60.0 * rate / (HOP * period)


def click_track(period: int, n_frames: int = 400, first: int = 30) -> torch.Tensor:
    """Noise bursts of three frames that begin every `period` frames, over faint noise."""
    generator = np.random.default_rng(period)
    y = 1e-3 * generator.standard_normal(n_frames * HOP)
    for frame in range(first, n_frames - 4, period):
        y[frame * HOP :][: 3 * HOP] += 0.5 * generator.standard_normal(3 * HOP)
    return torch.from_numpy(y).float()


def special_signals(size: int) -> dict[str, np.ndarray]:
    click = np.zeros(size)
    click[size // 2] = 1.0
    signals = {
        "silence": np.zeros(size),
        "click": click,
        "constant": np.full(size, 0.5),
        "square": np.where(np.arange(size) // 50 % 2 == 0, 1.0, -1.0),
        "noise": 0.3 * np.random.default_rng(size).standard_normal(size),
    }
    return {name: y.astype(np.float32) for name, y in signals.items()}


def librosa_beats(y: np.ndarray, rate: int = RATE, **settings: object) -> tuple[list[int], float]:
    tempo, beats = librosa.beat.beat_track(y=y, sr=rate, **settings)
    return beats.tolist(), float(np.squeeze(tempo))


def our_beats(tracker: BeatTracker, y: np.ndarray) -> tuple[list[int], float]:
    beats, tempo = tracker(torch.from_numpy(y))
    return beats.nonzero().flatten().tolist(), tempo.item()


@pytest.mark.parametrize("period", [18, 20, 27])
def test_clicks_have_their_tempo_and_their_beats(period):
    y = click_track(period)
    assert float(Tempo()(y)) == pytest.approx(bpm_of(period), rel=1e-6)
    beats, tempo = BeatTracker()(y)
    assert float(tempo) == pytest.approx(bpm_of(period), rel=1e-6)
    # The last beat of all may be any peak near the end.
    frames = beats.nonzero().flatten()[:-1]
    assert len(frames) >= 360 // period - 1
    assert (frames.diff() == period).all()
    # The steepest rise is that of the window which a burst first reaches the middle of.
    assert ((frames - 30) % period <= 2).all()


def test_onset_strength_peaks_where_a_burst_begins():
    onset = OnsetStrength()(click_track(period=1000, first=100))
    assert abs(int(onset.argmax()) - 100) <= 2
    assert float(onset.max()) > 10 * float(onset.median())


@pytest.mark.parametrize("aggregate", ["mean", "median"])
def test_loudness_does_not_change_onsets(aggregate):
    module = OnsetStrength(aggregate=aggregate)
    y = click_track(20)
    torch.testing.assert_close(module(0.25 * y), module(y), rtol=0, atol=1e-4)


def test_a_delay_by_whole_frames_delays_the_onsets():
    y = click_track(20)
    onset = OnsetStrength()(y)
    later = OnsetStrength()(torch.cat([torch.zeros(7 * HOP), y]))
    torch.testing.assert_close(later[:, 20:], onset[:, 13:], rtol=0, atol=1e-3)


def test_tempogram_peaks_at_multiples_of_the_period():
    tempogram = Tempogram()(click_track(20))
    assert tempogram.shape == (384, 401)
    torch.testing.assert_close(tempogram[0], torch.ones(401))
    assert tempogram.abs().max() <= 1 + 1e-6
    middle = tempogram[:, 200]
    for lag in (20, 40, 60):
        assert int(middle[lag - 5 : lag + 6].argmax()) == 5
    assert float(middle[30]) < 0.2 * float(middle[20])


def test_tempo_follows_the_prior_between_octaves():
    y = click_track(24)
    slow, fast = Tempo(start_bpm=60.0, std_bpm=0.2)(y), Tempo(start_bpm=110.0, std_bpm=0.2)(y)
    assert float(slow) == pytest.approx(bpm_of(48), rel=1e-6)
    assert float(fast) == pytest.approx(bpm_of(24), rel=1e-6)


@pytest.mark.parametrize("max_tempo", [None, 100.0, 1.0])
def test_tempo_below_a_limit(max_tempo):
    y = click_track(20)
    expected = librosa.feature.tempo(y=y.numpy(), max_tempo=max_tempo)
    assert float(Tempo(max_tempo=max_tempo)(y)) == pytest.approx(float(expected[0]), rel=1e-6)


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("size", [1, 700, 2048, 2049, 4608])
def test_short_clips_equal_librosa(rate, size):
    onset, tempogram, tempo, tracker = (
        build(rate) for build in (OnsetStrength, Tempogram, Tempo, BeatTracker)
    )
    for name, y in special_signals(size).items():
        x = torch.from_numpy(y)
        expected = quietly(lambda y, sr: librosa.onset.onset_strength(y=y, sr=sr), y, rate)
        np.testing.assert_allclose(onset(x)[0], expected, atol=1e-3, err_msg=name)
        expected = quietly(lambda y, sr: librosa.feature.tempogram(y=y, sr=sr), y, rate)
        np.testing.assert_allclose(tempogram(x), expected, atol=1e-4, err_msg=name)
        expected = quietly(lambda y, sr: librosa.feature.tempo(y=y, sr=sr), y, rate)
        np.testing.assert_allclose(tempo(x), expected, rtol=1e-6, err_msg=name)
        beats, bpm = quietly(librosa_beats, y, rate)
        ours = our_beats(tracker, y)
        assert ours == (beats, pytest.approx(bpm, rel=1e-6)), name


@pytest.mark.parametrize(
    "settings",
    [
        {"start_bpm": 60.0},
        {"tightness": 3.7},
        {"trim": False},
        {"bpm": 97.3},
        {"bpm": 11.0, "trim": False},
        # Every frame, every second frame, and one beat of 1291 frames.
        {"bpm": 2583.9},
        {"bpm": 1292.0},
        {"bpm": 2.0},
    ],
    ids=str,
)
def test_beats_in_other_settings_equal_librosa(settings):
    y = click_track(23).numpy()
    y = y + 0.1 * np.random.default_rng(1).standard_normal(len(y)).astype(np.float32)
    with warnings.catch_warnings():
        # librosa takes the logarithm of a distance of 0 frames.
        warnings.filterwarnings("ignore", message="divide by zero", category=RuntimeWarning)
        expected = librosa_beats(y, **settings)
    beats, tempo = our_beats(BeatTracker(**settings), y)
    assert beats == expected[0]
    assert tempo == pytest.approx(expected[1], rel=1e-6)


def test_beats_of_other_onsets_equal_librosa():
    y = click_track(23).numpy()
    onset = librosa.onset.onset_strength(y=y, n_fft=1024, hop_length=256, max_size=3, fmax=6000)
    expected = librosa.beat.beat_track(onset_envelope=onset, hop_length=256)
    tracker = BeatTracker(RATE, 1024, 256, aggregate="mean", max_size=3, fmax=6000.0)
    beats, tempo = our_beats(tracker, y)
    assert beats == expected[1].tolist()
    assert tempo == pytest.approx(float(expected[0][0]), rel=1e-6)


def test_no_onsets_no_beats():
    y = torch.zeros(3, 4 * RATE)
    y[1] = click_track(20)[: 4 * RATE]
    y[2, RATE] = torch.nan
    beats, tempo = BeatTracker()(y)
    alone, alone_tempo = BeatTracker()(y[1])
    assert beats.dtype == torch.bool
    assert not beats[0].any()
    assert float(tempo[0]) == 0.0
    assert beats[1].any()
    assert torch.equal(beats[1], alone)
    assert torch.equal(tempo[1], alone_tempo)
    assert not beats[2].any()
    assert tempo[2].isnan()
    # A known tempo is none either, where nothing sounds.
    tempo = BeatTracker(bpm=120.0)(y)[1]
    assert tempo[:2].tolist() == [[0.0], [120.0]]
    assert tempo[2].isnan()


@pytest.mark.parametrize("module", [OnsetStrength(), Tempogram(), Tempo(), Tempo(aggregate=None)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_no_number_of_a_clip_without(module, value):
    y = 0.1 * torch.randn(2, 700)  # two frames: nothing but the onsets' delay
    expected = module(y[1])
    y[0, 300] = value
    answer = module(y)
    assert answer[0].isnan().all()
    assert torch.equal(answer[1], expected)


def test_padded_recordings_have_the_beats_they_have_alone(recordings):
    clips = [torch.from_numpy(each.samples).float() for each in recordings]
    lengths = torch.tensor([len(clip) for clip in clips])
    tracker = BeatTracker()
    beats, tempo = tracker(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), lengths)
    equal = []
    for clip, ours, own in zip(clips, beats, tempo, strict=True):
        alone, alone_tempo = tracker(clip)
        equal.append(ours[: len(alone)] == alone)
        assert not ours[len(alone) :].any()
        assert torch.equal(own, alone_tempo)
    # All, but for paths that score exactly the same.
    assert torch.cat(equal).float().mean() >= 0.999


def test_long_clips_piece_by_piece_equal_the_scripted_whole():
    y = torch.stack([click_track(20, 1500), click_track(31, 1500)])
    lengths = torch.tensor([1500 * HOP, 700 * HOP + 5])
    tempo = Tempo()
    assert torch.equal(tempo(y, lengths), scripted(tempo)(y, lengths))
    tracker = BeatTracker()
    for ours, expected in zip(tracker(y, lengths), scripted(tracker)(y, lengths), strict=True):
        assert torch.equal(ours, expected)


def test_fewer_frames_than_a_window_without_centring_are_refused():
    with pytest.raises(ValueError, match=r"has 44 frames, needs at least win_length=384"):
        Tempogram(center=False)(torch.zeros(RATE))
    padded = Tempogram(center=False)(torch.zeros(1, 10 * RATE), torch.tensor([RATE]))
    assert not padded.any()
